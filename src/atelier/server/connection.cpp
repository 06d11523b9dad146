#include "atelier/server/connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <fmt/format.h>

#include "atelier/server/request_head.h"
#include "atelier/server/responses.h"

namespace atelier::server {

namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr auto nothrow_awaitable =
    net::as_tuple(net::use_awaitable);         // returns the error instead of throwing it
constexpr unsigned client_disconnected = 499;  // never sent; as nginx logs it

using Parser = http::request_parser<http::string_body>;

Response closing(unsigned status, const std::string& message, const std::string& code) {
    Response response = error_response(HttpError(status, message, "", code));
    response.close = true;
    return response;
}

Response rejection_of(const beast::error_code& error, const ClientLimits& limits) {
    if (error == http::error::body_limit)
        return closing(
            413, fmt::format("the body is too large; at most {} bytes are read", limits.body_bytes),
            "too_large");
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
        return closing(431,
                       fmt::format("the headers are too large; at most {} bytes are read",
                                   limits.header_bytes),
                       "headers_too_large");
    }
    return closing(400, "invalid HTTP request: " + error.message(), "bad_http");
}

/// Whether the client can still be sent an error: its bytes were read but could not be parsed.
bool is_http_error(const beast::error_code& error) {
    return error.category() == http::make_error_code(http::error::bad_method).category() &&
           error != http::error::end_of_stream && error != http::error::partial_message;
}

Response request_timeout(const ClientLimits& limits) {
    const std::string message = fmt::format(
        "the request did not arrive within {:g} s (--client-timeout); the limit is lower while "
        "there are too many connections",
        seconds(limits.timeout));
    return closing(408, message, "request_timeout");
}

/// Cancels the pending operation of a connection after a timeout or on eviction. Unlike
/// tcp_stream's own timeout it leaves the connection open, so that an error can be sent. Lives on
/// the connection's strand.
class Timeout {
public:
    Timeout(beast::tcp_stream& stream, Clock::duration timeout)
        : state_(std::make_shared<State>(stream, timeout)) {
        watch(state_);
    }

    bool over() const { return state_->over; }

    /// A function that cancels early; may be called from any thread, and after `this` is gone.
    std::function<void()> canceller() const {
        return [weak = std::weak_ptr(state_), executor = state_->timer.get_executor()] {
            net::post(executor, [weak] {
                if (const auto still = weak.lock())
                    still->timer.expires_after(Clock::duration::zero()), watch(still);
            });
        };
    }

private:
    struct State {
        State(beast::tcp_stream& with_stream, Clock::duration timeout)
            : stream(with_stream), timer(with_stream.get_executor(), timeout) {}
        beast::tcp_stream& stream;
        net::steady_timer timer;
        bool over = false;
    };

    /// Cancels repeatedly: an operation of several reads may be between two of them.
    static void watch(const std::shared_ptr<State>& state) {
        state->timer.async_wait([weak = std::weak_ptr(state)](const beast::error_code& error) {
            const auto still = weak.lock();
            if (error || !still) return;
            still->over = true;
            beast::error_code ignored;
            still->stream.socket().cancel(ignored);
            still->timer.expires_after(std::chrono::milliseconds(10));
            watch(still);
        });
    }

    std::shared_ptr<State> state_;
};

/// Suspends a coroutine until its job is finished, its deadline passes, or its client disconnects.
/// Lives on the connection's strand.
struct Waiter {
    explicit Waiter(const net::any_io_executor& executor) : timer(executor), probing(executor) {}

    void disconnect() {
        disconnected = true;
        timer.cancel();
    }

    net::steady_timer timer, probing;
    std::optional<Outcome> outcome;
    bool disconnected = false, over = false;
};

std::function<void(Outcome)> waker(const std::shared_ptr<Waiter>& waiter,
                                   const net::any_io_executor& executor) {
    return [waiter, executor](Outcome outcome) {
        net::post(executor, [waiter, outcome = std::move(outcome)]() mutable {
            waiter->outcome = std::move(outcome);
            waiter->timer.cancel();
        });
    };
}

bool is_broken(int descriptor) {
    pollfd descriptor_events{.fd = descriptor, .events = 0, .revents = 0};
    return ::poll(&descriptor_events, 1, 0) > 0 &&
           (descriptor_events.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

/// Whether a half-closed client still listens can only be found out by sending it something: an
/// interim response, which clients ignore. If it does not listen, its host resets the connection.
/// `send_interim`: false for HTTP/1.0, which has no interim responses.
void probe(int descriptor, const std::weak_ptr<Waiter>& waiter, bool send_interim, int round = 1) {
    constexpr std::chrono::milliseconds poll_interval{250};
    constexpr int polls_per_interim = 4;
    constexpr std::string_view interim_response = "HTTP/1.1 100 Continue\r\n\r\n";
    const auto locked = waiter.lock();
    if (!locked) return;
    locked->probing.expires_after(poll_interval);
    locked->probing.async_wait([=](const beast::error_code& error) {
        const auto still = waiter.lock();
        if (error || !still || still->over) return;
        if (is_broken(descriptor)) return still->disconnect();
        if (send_interim && round % polls_per_interim == 0) {
            const ssize_t sent = ::send(descriptor, interim_response.data(),
                                        interim_response.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent >= 0 ? sent != static_cast<ssize_t>(interim_response.size())
                          : errno != EAGAIN && errno != EINTR)
                return still->disconnect();
        }
        probe(descriptor, waiter, send_interim, round + 1);
    });
}

/// Wakes `waiter` when the client disconnects. A client that has only closed its own side (RFC
/// 9112, 9.6) still gets its response; one that has sent more data is assumed to stay.
void watch_for_disconnect(beast::tcp_stream& stream, const std::weak_ptr<Waiter>& waiter,
                          bool send_interim) {
    const int descriptor = stream.socket().native_handle();
    stream.socket().async_wait(net::socket_base::wait_read, [descriptor, waiter, send_interim](
                                                                const beast::error_code& error) {
        const auto locked = waiter.lock();
        if (error || !locked || locked->over) return;
        char byte = 0;
        const ssize_t read = ::recv(descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (read > 0 || (read < 0 && (errno == EAGAIN || errno == EINTR))) return;
        if (read < 0) return locked->disconnect();
        probe(descriptor, waiter, send_interim);
    });
}

class Session {
public:
    Session(beast::tcp_stream stream, const ServerContext& context)
        : stream_(std::move(stream)),
          service_(context.service),
          limits_(context.limits),
          in_flight_(context.in_flight),
          idle_(context.idle),
          encoders_(context.encoders),
          buffer_(limits_.header_bytes + limits_.body_bytes) {
        beast::error_code error;
        const net::ip::address address = stream_.socket().remote_endpoint(error).address();
        const bool mapped =
            address.is_v6() &&
            address.to_v6().is_v4_mapped();  // an IPv4 client of a dual-stack socket
        peer_ = error    ? "?"
                : mapped ? net::ip::make_address_v4(net::ip::v4_mapped, address.to_v6()).to_string()
                         : address.to_string();
    }
    ~Session() {
        idle_.leave(idle_id_);  // if the server stops while the connection is idle
        if (evicted_) idle_.ended();
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    net::awaitable<void> run() {
        for (bool keep_going = true; keep_going;) keep_going = co_await one_request();
        beast::error_code ignored;
        stream_.socket().shutdown(net::ip::tcp::socket::shutdown_send, ignored);
    }

    net::awaitable<void> turn_away() {
        Response response = service_.turned_away_response();
        // A new connection has room for this, so nobody is waited for.
        const Request unread;
        if (co_await write(unread, response, 11)) co_await linger();
    }

private:
    net::awaitable<bool> one_request() {
        Incoming in;
        in.limits = limits_;
        const auto [error, late] = co_await read(in);
        const bool rejected = in.problem.has_value();
        if (error && !is_http_error(error) && !(late && in.begun)) co_return false;
        const InProgress counted(in_flight_);
        Request& request = in.request;
        Response response;
        bool connected = true;
        if (late) response = request_timeout(limits_);
        else if (rejected) response = closing(in.problem->status, in.problem->message, "bad_http");
        else if (error) response = rejection_of(error, in.limits);
        else connected = co_await answer(request, in.http_1_0, response);
        response.close =
            response.close || evicted_ || !in.parser.is_header_done() || !in.parser.keep_alive();
        service_.complete(request, response);
        if (!connected) co_return false;
        const bool written = co_await write(request, response, in.http_1_0 ? 10 : 11);
        if ((error || rejected) && written && !evicted_) co_await linger();
        co_return written && !response.close;
    }

    struct ReadResult {
        beast::error_code error;
        bool late = false;  // the error is a client timeout or an eviction
    };

    /// Rejects control characters in chunk extensions, which other parsers could take for a line
    /// end.
    struct ChunkCheck {
        void operator()(std::uint64_t, beast::string_view extensions,
                        beast::error_code& error) const {
            if (std::ranges::any_of(extensions, [](char c) {
                    return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 0x7f;
                }))
                error = http::error::bad_chunk_extension;
        }
    };

    /// A request while it is being read.
    struct Incoming {
        Parser parser;
        ChunkCheck chunk_check;
        Request request;
        ClientLimits limits;
        bool begun = false, http_1_0 = false, expects_continue = false;
        std::optional<HeadProblem> problem;  // if set, the rest of the request is not read
    };

    net::awaitable<ReadResult> read(Incoming& in) {
        stream_.expires_never();
        const Timeout timeout(stream_, limits_.timeout);
        idle_id_ = idle_.enter(timeout.canceller());
        beast::error_code error = co_await read_head(in);
        if (!error && !in.problem) error = co_await read_body(in);
        evicted_ = !idle_.leave(idle_id_);
        co_return ReadResult{error, error == net::error::operation_aborted && timeout.over()};
    }

    std::string_view buffered() const {
        return {static_cast<const char*>(buffer_.cdata().data()), buffer_.size()};
    }

    /// Reads until the head is complete, and checks it before the parser sees any of it.
    net::awaitable<beast::error_code> read_head(Incoming& in) {
        constexpr std::string_view end_of_head = "\r\n\r\n";
        constexpr std::size_t chunk_bytes = 4096;
        for (;;) {
            buffer_.consume(leading_empty_lines(buffered()));
            in.begun = buffer_.size() > 0;
            const std::size_t end = buffered().find(end_of_head);
            const bool whole =
                end != std::string_view::npos && end + end_of_head.size() <= limits_.header_bytes;
            beast::error_code error;
            if (!whole && buffer_.size() > limits_.header_bytes) error = http::error::header_limit;
            if (!whole && !error && !is_invalid_head(buffered())) {
                auto [problem, count] = co_await stream_.async_read_some(
                    buffer_.prepare(chunk_bytes), nothrow_awaitable);
                buffer_.commit(count);
                if (!problem) continue;
                error = problem;
            }
            RequestHead head = read_request_head(
                whole ? buffered().substr(0, end + end_of_head.size()) : buffered());
            if (!error) in.problem = std::move(head.problem);
            in.http_1_0 = head.http_1_0;
            in.expects_continue = head.expects_continue;
            in.request = request_of(std::move(head), peer_);
            co_return error;
        }
    }

    net::awaitable<beast::error_code> read_body(Incoming& in) {
        in.limits.body_bytes = service_.max_body_bytes(in.request, limits_.body_bytes);
        in.parser.header_limit(limits_.header_bytes);
        in.parser.body_limit(in.limits.body_bytes);
        in.parser.on_chunk_header(in.chunk_check);
        auto [error, bytes] =
            co_await http::async_read_header(stream_, buffer_, in.parser, nothrow_awaitable);
        if (error) co_return error;
        if (in.expects_continue && buffer_.size() == 0) {
            http::response<http::empty_body> go_on{http::status::continue_, 11};
            auto [problem, written] = co_await http::async_write(stream_, go_on, nothrow_awaitable);
            if (problem) co_return problem;
        }
        auto [body_error, body_bytes] =
            co_await http::async_read(stream_, buffer_, in.parser, nothrow_awaitable);
        if (!body_error) in.request.body = std::move(in.parser.get().body());
        co_return body_error;
    }

    /// Returns false if the client disconnected meanwhile.
    net::awaitable<bool> answer(Request& request, bool http_1_0, Response& response) {
        request.arrived = Clock::now();
        const auto waiter = std::make_shared<Waiter>(stream_.get_executor());
        const auto on_finished = waker(waiter, stream_.get_executor());
        auto begun = service_.begin(request, on_finished);
        if (auto* unencoded = std::get_if<Pending>(&begun); unencoded && !unencoded->job) {
            co_await net::post(net::bind_executor(
                encoders_, net::use_awaitable));  // continue on the encoder threads
            begun = service_.encode(request, std::move(*unencoded), on_finished);
            co_await net::post(net::bind_executor(stream_.get_executor(), net::use_awaitable));
        }
        if (auto* immediate = std::get_if<Response>(&begun)) {
            response = std::move(*immediate);
            co_return true;
        }
        const Pending& pending = std::get<Pending>(begun);
        waiter->timer.expires_at(pending.job->deadline);
        watch_for_disconnect(stream_, waiter, !http_1_0);
        if (!waiter->outcome) co_await waiter->timer.async_wait(nothrow_awaitable);
        waiter->over = true;  // only the response may be sent from here on
        waiter->probing.cancel();
        if (waiter->outcome) {
            response = service_.finish(request, pending, *waiter->outcome);
        } else {
            service_.abandon(pending, waiter->disconnected ? "left" : "late");
            response = waiter->disconnected ? Response{.status = client_disconnected}
                                            : Service::timeout_response();
        }
        co_return !waiter->disconnected;
    }

    net::awaitable<bool> write(const Request& request, Response& response, unsigned version) {
        http::response<http::string_body> message{static_cast<http::status>(response.status),
                                                  version};
        for (const auto& [name, value] : response.headers) message.insert(name, value);
        if (!response.content_type.empty())
            message.set(http::field::content_type, response.content_type);
        message.keep_alive(!response.close);
        message.body() = std::move(response.body);
        message.prepare_payload();
        if (request.method == "HEAD") message.body().clear();
        stream_.expires_after(limits_.timeout);
        auto [error, bytes] = co_await http::async_write(stream_, message, nothrow_awaitable);
        co_return !error;
    }

    /// Reads on for up to a second: closing with unread bytes would reset the connection and
    /// discard the response.
    net::awaitable<void> linger() {
        beast::error_code error;
        stream_.socket().shutdown(net::ip::tcp::socket::shutdown_send, error);
        stream_.expires_after(std::chrono::seconds(1));
        std::array<char, 4096> bytes{};
        for (std::size_t left = 1 << 20; !error && left >= bytes.size(); left -= bytes.size()) {
            std::tie(error, std::ignore) =
                co_await stream_.async_read_some(net::buffer(bytes), nothrow_awaitable);
        }
    }

    struct InProgress {
        explicit InProgress(InFlightRequests& in_flight) : counter(in_flight) { counter.enter(); }
        ~InProgress() { counter.leave(); }
        InProgress(const InProgress&) = delete;
        InProgress& operator=(const InProgress&) = delete;
        InFlightRequests& counter;
    };

    beast::tcp_stream stream_;
    Service& service_;
    const ClientLimits limits_;
    InFlightRequests& in_flight_;
    IdleConnections& idle_;
    const net::any_io_executor encoders_;
    std::uint64_t idle_id_ = 0;  // of idle_, once it has been idle
    bool evicted_ = false;
    beast::flat_buffer buffer_;
    std::string peer_;
};

}  // namespace

net::awaitable<void> turn_away(beast::tcp_stream stream, ServerContext context) {
    Session session(std::move(stream), context);
    co_await session.turn_away();
}

net::awaitable<void> run_session(beast::tcp_stream stream, ServerContext context) {
    Session session(std::move(stream), context);
    co_await session.run();
}

}  // namespace atelier::server
