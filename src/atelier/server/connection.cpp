#include "atelier/server/connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <fmt/format.h>

#include "atelier/server/answers.h"
#include "atelier/server/request_head.h"

namespace atelier::server {

namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr auto quietly = net::as_tuple(net::use_awaitable);  // gives the error instead of throwing it
constexpr unsigned client_left = 499;  // never sent; nginx's word for it in logs

using Parser = http::request_parser<http::string_body>;

Response closing(unsigned status, const std::string& message, const std::string& code) {
    Response response = error_response(Refusal(status, message, "", code));
    response.close = true;
    return response;
}

Response refusal_of(const beast::error_code& error, const ClientLimits& limits) {
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
    return closing(400, "this is no HTTP request: " + error.message(), "bad_http");
}

/// Whether a client can still hear why it was refused: what it sent was read, but could not be understood.
bool is_of_http(const beast::error_code& error) {
    return error.category() == http::make_error_code(http::error::bad_method).category() && error != http::error::end_of_stream &&
           error != http::error::partial_message;
}

Response too_slow(const ClientLimits& limits) {
    const std::string message = fmt::format("the request did not come in time: {:g} s are given (--client-timeout), and less while there are too many connections",
                                            seconds(limits.patience));
    return closing(408, message, "request_timeout");
}

/// Ends what a connection waits for once its time is over, or it is given up. Unlike tcp_stream's own clock it leaves the connection open, so that the
/// client can be told why. Lives on the connection's strand.
class Patience {
public:
    Patience(beast::tcp_stream& stream, Clock::duration patience) : state_(std::make_shared<State>(stream, patience)) { watch(state_); }

    bool over() const { return state_->over; }

    /// Ends it early; for any thread, and for longer than `this` lives.
    std::function<void()> ender() const {
        return [weak = std::weak_ptr(state_), executor = state_->timer.get_executor()] {
            net::post(executor, [weak] {
                if (const auto still = weak.lock()) still->timer.expires_after(Clock::duration::zero()), watch(still);
            });
        };
    }

private:
    struct State {
        State(beast::tcp_stream& with_stream, Clock::duration patience) : stream(with_stream), timer(with_stream.get_executor(), patience) {}
        beast::tcp_stream& stream;
        net::steady_timer timer;
        bool over = false;
    };

    /// Again and again: an operation of several reads may just be between two of them.
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

/// Lets a coroutine sleep until its job is finished, its time is over, or its client left. Lives on the connection's strand.
struct Waiter {
    explicit Waiter(const net::any_io_executor& executor) : timer(executor), probing(executor) {}

    void leave() {
        left = true;
        timer.cancel();
    }

    net::steady_timer timer, probing;
    std::optional<Outcome> outcome;
    bool left = false, over = false;
};

std::function<void(Outcome)> waker(const std::shared_ptr<Waiter>& waiter, const net::any_io_executor& executor) {
    return [waiter, executor](Outcome outcome) {
        net::post(executor, [waiter, outcome = std::move(outcome)]() mutable {
            waiter->outcome = std::move(outcome);
            waiter->timer.cancel();
        });
    };
}

bool is_broken(int descriptor) {
    pollfd look{.fd = descriptor, .events = 0, .revents = 0};
    return ::poll(&look, 1, 0) > 0 && (look.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

/// Whether a client that will send no more still listens can only be learnt by sending it
/// something: where it does not, its machine says so. An interim response is that, to which no
/// client answers. `speak`: not to HTTP/1.0, which has none.
void probe(int descriptor, const std::weak_ptr<Waiter>& waiter, bool speak, int round = 1) {
    constexpr std::chrono::milliseconds between_looks{250};
    constexpr int looks_a_word = 4;
    constexpr std::string_view word = "HTTP/1.1 100 Continue\r\n\r\n";
    const auto waiting = waiter.lock();
    if (!waiting) return;
    waiting->probing.expires_after(between_looks);
    waiting->probing.async_wait([=](const beast::error_code& error) {
        const auto still = waiter.lock();
        if (error || !still || still->over) return;
        if (is_broken(descriptor)) return still->leave();
        if (speak && round % looks_a_word == 0) {
            const ssize_t sent =
                ::send(descriptor, word.data(), word.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent >= 0 ? sent != static_cast<ssize_t>(word.size())
                          : errno != EAGAIN && errno != EINTR)
                return still->leave();
        }
        probe(descriptor, waiter, speak, round + 1);
    });
}

/// Wakes `waiter` when the client is gone. One that has only ended its own side (RFC 9112, 9.6)
/// still wants its answer, and one that has sent more is believed to stay.
void watch_for_leaving(beast::tcp_stream& stream, const std::weak_ptr<Waiter>& waiter, bool speak) {
    const int descriptor = stream.socket().native_handle();
    stream.socket().async_wait(
        net::socket_base::wait_read, [descriptor, waiter, speak](const beast::error_code& error) {
            const auto waiting = waiter.lock();
            if (error || !waiting || waiting->over) return;
            char byte = 0;
            const ssize_t read = ::recv(descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
            if (read > 0 || (read < 0 && (errno == EAGAIN || errno == EINTR))) return;
            if (read < 0) return waiting->leave();
            probe(descriptor, waiter, speak);
        });
}

class Conversation {
public:
    Conversation(beast::tcp_stream stream, const Surroundings& with)
        : stream_(std::move(stream)), service_(with.service), limits_(with.limits), exchanges_(with.exchanges), waiting_(with.waiting), readers_(with.readers),
          buffer_(limits_.header_bytes + limits_.body_bytes) {
        beast::error_code error;
        const net::ip::address address = stream_.socket().remote_endpoint(error).address();
        const bool mapped =
            address.is_v6() &&
            address.to_v6().is_v4_mapped();  // of a client by IPv4, where both are listened to
        peer_ = error    ? "?"
                : mapped ? net::ip::make_address_v4(net::ip::v4_mapped, address.to_v6()).to_string()
                         : address.to_string();
    }
    ~Conversation() {
        waiting_.leave(place_);  // where the server ends while it waits
        if (given_up_) waiting_.ended();
    }
    Conversation(const Conversation&) = delete;
    Conversation& operator=(const Conversation&) = delete;

    net::awaitable<void> run() {
        for (bool goes_on = true; goes_on;) goes_on = co_await one_request();
        beast::error_code ignored;
        stream_.socket().shutdown(net::ip::tcp::socket::shutdown_send, ignored);
    }

private:
    net::awaitable<bool> one_request() {
        Incoming in;
        in.limits = limits_;
        const auto [error, late] = co_await read(in);
        const bool refused = in.problem.has_value();
        if (error && !is_of_http(error) && !(late && in.begun)) co_return false;
        const InProgress counted(exchanges_);
        Request& request = in.request;
        Response response;
        bool stays = true;
        if (late) response = too_slow(limits_);
        else if (refused) response = closing(in.problem->status, in.problem->message, "bad_http");
        else if (error) response = refusal_of(error, in.limits);
        else stays = co_await answer(request, in.http_1_0, response);
        response.close =
            response.close || given_up_ || !in.parser.is_header_done() || !in.parser.keep_alive();
        service_.complete(request, response);
        if (!stays) co_return false;
        const bool written = co_await write(request, response, in.http_1_0 ? 10 : 11);
        if ((error || refused) && written && !given_up_) co_await linger();
        co_return written && !response.close;
    }

    struct Reading {
        beast::error_code error;
        bool late = false;  // the error is that the client's time is over
    };

    /// Control characters in a chunk's extension, which could end its line for other readers.
    struct ChunkCheck {
        void operator()(std::uint64_t, beast::string_view extensions,
                        beast::error_code& error) const {
            if (std::ranges::any_of(extensions, [](char c) {
                    return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 0x7f;
                }))
                error = http::error::bad_chunk_extension;
        }
    };

    /// A request while it is read.
    struct Incoming {
        Parser parser;
        ChunkCheck chunk_check;
        Request request;
        ClientLimits limits;
        bool begun = false, http_1_0 = false, expects_continue = false;
        std::optional<HeadProblem> problem;  // no more of it is read then
    };

    net::awaitable<Reading> read(Incoming& in) {
        stream_.expires_never();
        const Patience patience(stream_, limits_.patience);
        place_ = waiting_.enter(patience.ender());
        beast::error_code error = co_await read_head(in);
        if (!error && !in.problem) error = co_await read_body(in);
        given_up_ = !waiting_.leave(place_);
        co_return Reading{error, error == net::error::operation_aborted && patience.over()};
    }

    std::string_view buffered() const {
        return {static_cast<const char*>(buffer_.cdata().data()), buffer_.size()};
    }

    /// Reads on until the head is whole, and judges it ourselves before the parser sees any of it.
    net::awaitable<beast::error_code> read_head(Incoming& in) {
        constexpr std::string_view end_of_head = "\r\n\r\n";
        constexpr std::size_t piece = 4096;
        for (;;) {
            buffer_.consume(leading_empty_lines(buffered()));
            in.begun = buffer_.size() > 0;
            const std::size_t end = buffered().find(end_of_head);
            const bool whole =
                end != std::string_view::npos && end + end_of_head.size() <= limits_.header_bytes;
            beast::error_code error;
            if (!whole && buffer_.size() > limits_.header_bytes) error = http::error::header_limit;
            if (!whole && !error && !is_hopeless(buffered())) {
                auto [problem, count] =
                    co_await stream_.async_read_some(buffer_.prepare(piece), quietly);
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
        in.limits.body_bytes = service_.longest_body(in.request, limits_.body_bytes);
        in.parser.header_limit(limits_.header_bytes);
        in.parser.body_limit(in.limits.body_bytes);
        in.parser.on_chunk_header(in.chunk_check);
        auto [error, bytes] =
            co_await http::async_read_header(stream_, buffer_, in.parser, quietly);
        if (error) co_return error;
        if (in.expects_continue && buffer_.size() == 0) {
            http::response<http::empty_body> go_on{http::status::continue_, 11};
            auto [problem, written] = co_await http::async_write(stream_, go_on, quietly);
            if (problem) co_return problem;
        }
        auto [body_error, body_bytes] =
            co_await http::async_read(stream_, buffer_, in.parser, quietly);
        if (!body_error) in.request.body = std::move(in.parser.get().body());
        co_return body_error;
    }

    /// False when the client left meanwhile.
    net::awaitable<bool> answer(Request& request, bool http_1_0, Response& response) {
        request.arrived = Clock::now();
        const auto waiter = std::make_shared<Waiter>(stream_.get_executor());
        const auto finished = waker(waiter, stream_.get_executor());
        auto begun = service_.begin(request, finished);
        if (auto* unread = std::get_if<Pending>(&begun); unread && !unread->job) {
            co_await net::post(net::bind_executor(readers_, net::use_awaitable));  // from here on among the readers
            begun = service_.read(request, std::move(*unread), finished);
            co_await net::post(net::bind_executor(stream_.get_executor(), net::use_awaitable));
        }
        if (auto* at_once = std::get_if<Response>(&begun)) {
            response = std::move(*at_once);
            co_return true;
        }
        const Pending& pending = std::get<Pending>(begun);
        waiter->timer.expires_at(pending.job->deadline);
        watch_for_leaving(stream_, waiter, !http_1_0);
        if (!waiter->outcome) co_await waiter->timer.async_wait(quietly);
        waiter->over = true;  // what is sent from here on is the answer
        waiter->probing.cancel();
        if (waiter->outcome) {
            response = service_.finish(request, pending, *waiter->outcome);
        } else {
            service_.abandon(pending, waiter->left ? "left" : "late");
            response = waiter->left ? Response{.status = client_left} : Service::late_answer();
        }
        co_return !waiter->left;
    }

    net::awaitable<bool> write(const Request& request, Response& response, unsigned version) {
        http::response<http::string_body> message{static_cast<http::status>(response.status), version};
        for (const auto& [name, value] : response.headers) message.insert(name, value);
        if (!response.content_type.empty()) message.set(http::field::content_type, response.content_type);
        message.keep_alive(!response.close);
        message.body() = std::move(response.body);
        message.prepare_payload();
        if (request.method == "HEAD") message.body().clear();
        stream_.expires_after(limits_.patience);
        auto [error, bytes] = co_await http::async_write(stream_, message, quietly);
        co_return !error;
    }

    /// Reads on for a little while, since closing with unread bytes would take the answer away from the client.
    net::awaitable<void> linger() {
        beast::error_code error;
        stream_.socket().shutdown(net::ip::tcp::socket::shutdown_send, error);
        stream_.expires_after(std::chrono::seconds(1));
        std::array<char, 4096> bytes{};
        for (std::size_t left = 1 << 20; !error && left >= bytes.size(); left -= bytes.size()) {
            std::tie(error, std::ignore) = co_await stream_.async_read_some(net::buffer(bytes), quietly);
        }
    }

    struct InProgress {
        explicit InProgress(Exchanges& exchanges) : counted(exchanges) { counted.enter(); }
        ~InProgress() { counted.leave(); }
        InProgress(const InProgress&) = delete;
        InProgress& operator=(const InProgress&) = delete;
        Exchanges& counted;
    };

    beast::tcp_stream stream_;
    Service& service_;
    const ClientLimits limits_;
    Exchanges& exchanges_;
    WaitingClients& waiting_;
    const net::any_io_executor readers_;
    std::uint64_t place_ = 0;  // among those, once it has waited
    bool given_up_ = false;
    beast::flat_buffer buffer_;
    std::string peer_;
};

}  // namespace

net::awaitable<void> converse(beast::tcp_stream stream, Surroundings surroundings) {
    Conversation conversation(std::move(stream), surroundings);
    co_await conversation.run();
}

}  // namespace atelier::server
