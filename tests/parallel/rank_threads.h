#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "atelier/parallel/ranks.h"
#include "atelier/parallel/sockets.h"

namespace atelier::parallel {

/// Calls `work` as each of `world` ranks, which are threads of this process and meet over Gloo.
inline void as_ranks(int world, const std::function<void(Ranks&)>& work) {
    if (world == 1) return work(Ranks::alone());
    const std::uint16_t port = port_of(listen_on(0, true));
    std::vector<std::thread> threads;
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(world));
    for (int rank = 0; rank < world; ++rank) {
        threads.emplace_back([&, rank] {
            try {
                Place place{.rank = rank, .world = world};
                place.master_address = "127.0.0.1";
                place.master_port = port;
                place.launcher = "a test";
                Ranks ranks(place);
                as_rank(ranks, [&] { work(ranks); });
            } catch (...) {
                errors[static_cast<std::size_t>(rank)] = std::current_exception();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

}  // namespace atelier::parallel
