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
#include "atelier/server/residents.h"

namespace atelier::server {

namespace net = boost::asio;
using net::ip::tcp;

namespace {

constexpr std::chrono::milliseconds between_stop_looks{5};

tcp::acceptor listening(net::io_context& io, const std::string& host, std::uint16_t port) {
    boost::system::error_code error;
    const auto address =
        net::ip::make_address(host == "localhost" ? "127.0.0.1" : without_brackets(host), error);
    if (error) throw core::UsageError(fmt::format("--host: \"{}\" is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all", host));
    try {
        return {io, tcp::endpoint(address, port)};
    } catch (const boost::system::system_error& problem) {
        core::fail("{}:{} cannot be had ({}); is another server there? --port takes another",
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

/// Each connection is an open file. Raises this process's soft limit as far as needed and allowed,
/// and says so where fewer than `wanted` fit. Beside them there is room for models that are read
/// anew and, in a router, for a connection of each worker.
std::size_t connections_that_fit(std::size_t wanted, std::size_t workers) {
    const std::size_t beside = 2 * open_files() + workers + 64;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted + beside) return wanted;
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted + beside);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= wanted + beside) return wanted;
    const std::size_t fit = limit.rlim_cur > beside ? limit.rlim_cur - beside : 1;
    core::log::warning(
        "--max-connections {}: {} are kept open, for {} files are all that this process may open "
        "(ulimit -n)",
        wanted, fit, limit.rlim_cur);
    return fit;
}

Service::Options with_host_check(Service::Options service, const std::string& host) {
    service.checks_host = is_loopback(host) || !service.allowed_hosts.empty();
    return service;
}

/// Whether there are no files left to open a connection with.
bool is_short_of_files(const boost::system::error_code& error) {
    namespace errc = boost::system::errc;
    return error == errc::too_many_files_open || error == errc::too_many_files_open_in_system ||
           error == errc::no_buffer_space || error == errc::not_enough_memory;
}

}  // namespace

/// Destroyed from the end: connections, then workers, then what they use.
struct Server::Running {
    Running(const Options& options, std::vector<Source> sources)
        : limits{.patience = options.patience},
          residents(options.memory_budget, metrics),
          library(std::move(sources), residents, metrics),
          batcher(std::make_unique<Batcher>(options.batching, residents, metrics)),
          service(with_host_check(options.service, options.host), library, *batcher, residents,
                  metrics),
          acceptor(listening(io, options.host, options.port)),
          most_connections(connections_that_fit(
              options.most_connections, static_cast<std::size_t>(options.batching.workers))) {
        net::co_spawn(io, accept(), net::detached);
        for (int i = 0; i < options.io_threads; ++i) threads.emplace_back([this] { io.run(); });
    }

    ~Running() {
        io.stop();
        for (std::thread& thread : threads) thread.join();
        readers.stop();
        readers.join();
        batcher.reset();  // what waits there points into `io`
    }

    net::awaitable<void> accept() {
        for (;;) {
            auto [error, socket] = co_await acceptor.async_accept(net::make_strand(io), net::as_tuple(net::use_awaitable));
            if (!error) {
                greet(std::move(socket));
                continue;
            }
            // A connection that only waits makes way at once; where all are busy, some will end.
            const bool makes_way = is_short_of_files(error) && waiting.give_up_one();
            net::steady_timer pause(io, std::chrono::milliseconds(makes_way ? 1 : 50));
            co_await pause.async_wait(net::as_tuple(net::use_awaitable));
        }
    }

    void greet(tcp::socket socket) {
        if (connections - waiting.ending() >= most_connections && !waiting.give_up_one()) return;
        service.set_connections(++connections);
        boost::system::error_code ignored;
        socket.set_option(tcp::no_delay(true), ignored);
        const auto executor = socket.get_executor();
        net::co_spawn(executor, converse(boost::beast::tcp_stream(std::move(socket)), {service, limits, exchanges, waiting, readers.get_executor()}), [this](const std::exception_ptr& problem) {
            service.set_connections(--connections);
            if (problem) core::log::warning("a connection ended unexpectedly");
        });
    }

    const ClientLimits limits;
    Metrics metrics;
    Residents residents;
    Library library;
    std::unique_ptr<Batcher> batcher;
    Service service;
    Exchanges exchanges;
    WaitingClients waiting;
    std::atomic<std::size_t> connections = 0;
    net::io_context io;
    net::thread_pool readers{1};  // of prompts; their towers use several cores as it is
    tcp::acceptor acceptor;
    const std::size_t most_connections;
    std::vector<std::thread> threads;
};

Server::Server(const Options& options, std::vector<Source> sources) : running_(std::make_unique<Running>(options, std::move(sources))) {}

Server::~Server() = default;

std::uint16_t Server::port() const { return running_->acceptor.local_endpoint().port(); }

void Server::warm_up() {
    running_->library.warm_up();
    running_->service.set_ready(true);
}

Library& Server::library() { return running_->library; }

bool Server::drain(Clock::duration grace) {
    running_->service.drain();
    const Clock::time_point end = Clock::now() + grace;
    while (!running_->exchanges.none()) {
        if (Clock::now() > end) return false;
        std::this_thread::sleep_for(between_stop_looks);
    }
    return true;
}

}  // namespace atelier::server
