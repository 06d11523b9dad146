#include "atelier/cli/with_ranks.h"

#include "atelier/core/environment.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/core/terminal.h"

namespace atelier::cli {

void with_ranks(const std::function<void(parallel::Ranks&)>& work) {
    const parallel::Place place = parallel::place_in(core::environment);
    if (place.rank > 0) {
        core::log::set_quiet(true);
        core::terminal::set_line_prefix(fmt::format("rank {}: ", place.rank));
    }
    core::stop_on_user_signal();
    if (place.world > 1) core::ignore_broken_pipes();
    parallel::Ranks ranks(place);
    parallel::as_rank(ranks, [&] { work(ranks); });
}

void by_first_rank(const std::function<void()>& work) {
    with_ranks([&](parallel::Ranks& ranks) {
        if (ranks.leads()) work();
        ranks.barrier();
    });
}

}  // namespace atelier::cli
