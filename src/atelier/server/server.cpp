#include "atelier/server/server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <filesystem>
#include <thread>

#include <sys/resource.h>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/server/addresses.h"
#include "atelier/server/connection.h"
#include "atelier/server/metrics.h"
#include "atelier/server/model_cache.h"

namespace atelier::server {

namespace net = boost::asio;
using net::ip::tcp;

namespace {

constexpr std::chrono::milliseconds drain_poll_interval{5};
constexpr std::size_t most_turned_away = 64;  // connections that are told so at a time

tcp::acceptor listening(net::io_context& io, const std::string& host, std::uint16_t port) {
    boost::system::error_code error;
    const auto address =
        net::ip::make_address(host == "localhost" ? "127.0.0.1" : without_brackets(host), error);
    if (error)
        throw core::UsageError(fmt::format(
            "--host: \"{}\" is not an IP address; use 127.0.0.1, or 0.0.0.0 for all", host));
    try {
        return {io, tcp::endpoint(address, port)};
    } catch (const boost::system::system_error& problem) {
        core::fail("cannot listen at {}:{} ({}); is another server running? --port takes another",
                   host_in_url(host), port, problem.code().message());
    }
}

std::size_t open_files() {
    std::error_code error;
    std::size_t count = 0;
    for (auto entry = std::filesystem::directory_iterator("/proc/self/fd", error);
         !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
        ++count;
    return count;
}

/// Each connection is an open file. Raises this process's soft limit as needed and allowed, and
/// logs a warning if fewer than `requested` fit. Other files stay reserved: for reloading models,
/// for connections that are turned away and, in a router, for one per worker thread.
std::size_t connections_that_fit(std::size_t requested, std::size_t workers) {
    const std::size_t reserved = 2 * open_files() + workers + most_turned_away + 64;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= requested + reserved)
        return requested;
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, requested + reserved);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= requested + reserved) return requested;
    const std::size_t fit = limit.rlim_cur > reserved ? limit.rlim_cur - reserved : 1;
    core::log::warning(
        "--max-connections {}: only {} are kept open, since this process may open {} files "
        "(ulimit -n)",
        requested, fit, limit.rlim_cur);
    return fit;
}

Service::Options with_host_check(Service::Options service, const std::string& host) {
    service.checks_host = is_loopback(host) || !service.allowed_hosts.empty();
    return service;
}

/// Whether accepting failed because no more files can be opened.
bool is_short_of_files(const boost::system::error_code& error) {
    namespace errc = boost::system::errc;
    return error == errc::too_many_files_open || error == errc::too_many_files_open_in_system ||
           error == errc::no_buffer_space || error == errc::not_enough_memory;
}

}  // namespace

/// Destroyed in reverse order: connections, then workers, then what they use.
struct Server::Impl {
    Impl(const Options& options, std::vector<ModelSource> sources)
        : limits{.timeout = options.client_timeout},
          cache(options.memory_budget, metrics),
          registry(std::move(sources), cache, metrics),
          batcher(std::make_unique<Batcher>(options.batching, cache, metrics)),
          service(with_host_check(options.service, options.host), registry, *batcher, cache,
                  metrics),
          acceptor(listening(io, options.host, options.port)),
          max_connections(connections_that_fit(
              options.max_connections, static_cast<std::size_t>(options.batching.workers))) {
        net::co_spawn(io, accept(), net::detached);
        for (int i = 0; i < options.io_threads; ++i) threads.emplace_back([this] { io.run(); });
    }

    ~Impl() {
        io.stop();
        for (std::thread& thread : threads) thread.join();
        encoders.stop();
        encoders.join();
        batcher.reset();  // its jobs refer to `io`
    }

    net::awaitable<void> accept() {
        for (;;) {
            auto [error, socket] = co_await acceptor.async_accept(
                net::make_strand(io), net::as_tuple(net::use_awaitable));
            if (!error) {
                start_session(std::move(socket));
                continue;
            }
            // An idle connection is evicted immediately; if all are busy, wait until one ends.
            const bool evicted = is_short_of_files(error) && idle.evict_oldest();
            net::steady_timer pause(io, std::chrono::milliseconds(evicted ? 1 : 50));
            co_await pause.async_wait(net::as_tuple(net::use_awaitable));
        }
    }

    void start_session(tcp::socket socket) {
        boost::system::error_code ignored;
        socket.set_option(tcp::no_delay(true), ignored);
        const auto executor = socket.get_executor();
        const ServerContext context{service, limits, in_flight, idle, encoders.get_executor()};
        if (connections - idle.ending() >= max_connections && !idle.evict_oldest()) {
            if (turned_away >= most_turned_away) return;
            ++turned_away;
            net::co_spawn(executor, turn_away(boost::beast::tcp_stream(std::move(socket)), context),
                          [this](const std::exception_ptr&) { --turned_away; });
            return;
        }
        service.set_connections(++connections);
        net::co_spawn(executor, run_session(boost::beast::tcp_stream(std::move(socket)), context),
                      [this](const std::exception_ptr& problem) {
                          service.set_connections(--connections);
                          if (problem) core::log::warning("a connection ended unexpectedly");
                      });
    }

    const ClientLimits limits;
    Metrics metrics;
    ModelCache cache;
    ModelRegistry registry;
    std::unique_ptr<Batcher> batcher;
    Service service;
    InFlightRequests in_flight;
    IdleConnections idle;
    std::atomic<std::size_t> connections = 0, turned_away = 0;
    net::io_context io;
    net::thread_pool encoders{1};  // of prompts; text encoders use several cores anyway
    tcp::acceptor acceptor;
    const std::size_t max_connections;
    std::vector<std::thread> threads;
};

Server::Server(const Options& options, std::vector<ModelSource> sources)
    : impl_(std::make_unique<Impl>(options, std::move(sources))) {}

Server::~Server() = default;

std::uint16_t Server::port() const { return impl_->acceptor.local_endpoint().port(); }

void Server::warm_up() {
    impl_->registry.warm_up();
    impl_->service.set_ready(true);
}

ModelRegistry& Server::registry() { return impl_->registry; }

bool Server::drain(Clock::duration grace) {
    impl_->service.drain();
    const Clock::time_point end = Clock::now() + grace;
    while (!impl_->in_flight.none()) {
        if (Clock::now() > end) return false;
        std::this_thread::sleep_for(drain_poll_interval);
    }
    return true;
}

}  // namespace atelier::server
