// The readers under libFuzzer: `fuzz_readers` runs the target named by ATELIER_FUZZ_TARGET.
#include <cstdio>
#include <cstdlib>

#include "fuzz/targets.h"

namespace {

const atelier::fuzz::Target& chosen() {
    const char* name = std::getenv("ATELIER_FUZZ_TARGET");
    if (const auto* target = atelier::fuzz::find_target(name == nullptr ? "" : name))
        return *target;
    std::fprintf(stderr, "ATELIER_FUZZ_TARGET must name a reader:");
    for (const auto& target : atelier::fuzz::targets()) std::fprintf(stderr, " %s", target.name);
    std::fprintf(stderr, "\n");
    std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const atelier::fuzz::Target& target = chosen();
    atelier::fuzz::try_file(target, {data, size});
    return 0;
}
