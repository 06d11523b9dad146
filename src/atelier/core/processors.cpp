#include "atelier/core/processors.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "atelier/core/log.h"

namespace atelier::core {

namespace {

namespace fs = std::filesystem;

constexpr double no_quota = std::numeric_limits<double>::infinity();

/// A mounted hierarchy of control groups.
struct GroupMount {
    std::string root;  // the group that is visible at `mount_point`
    fs::path mount_point;
    bool unified = false;  // cgroup v2
};

/// Decodes octal escapes of mountinfo, e.g. \040 for a space.
std::string without_escapes(const std::string& text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool escape = text[i] == '\\' && i + 3 < text.size();
        plain += escape ? static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8))
                        : text[i];
        if (escape) i += 3;
    }
    return plain;
}

bool names_cpu(const std::string& list) {
    std::istringstream words(list);
    for (std::string word; std::getline(words, word, ',');) {
        if (word == "cpu") return true;
    }
    return false;
}

/// Parses "36 35 98:0 /root /mount_point options... - cgroup2 source superoptions"; nothing for
/// mounts that cannot limit CPU time.
std::optional<GroupMount> group_mount(const std::string& line) {
    std::istringstream words(line);
    std::string id, parent, device, root, mount_point, word, type, source, options;
    words >> id >> parent >> device >> root >> mount_point;
    while (words >> word && word != "-") continue;
    words >> type >> source >> options;
    if (type != "cgroup2" && !(type == "cgroup" && names_cpu(options))) return std::nullopt;
    return GroupMount{without_escapes(root), without_escapes(mount_point), type == "cgroup2"};
}

double quota_of(const fs::path& group, bool unified) {
    double quota = -1, period = 0;
    if (unified) {
        std::string most;
        std::ifstream(group / "cpu.max") >> most >> period;
        quota = most.empty() || most == "max" ? -1 : std::strtod(most.c_str(), nullptr);
    } else {
        std::ifstream(group / "cpu.cfs_quota_us") >> quota;
        std::ifstream(group / "cpu.cfs_period_us") >> period;
    }
    return quota > 0 && period > 0 ? quota / period : no_quota;
}

/// Minimum quota of `group` and its ancestors that are visible at the mount. Where the group itself
/// is not visible there (a container without its own namespace sees its group as the root), the
/// mount's root is used.
double least_quota(const GroupMount& mount, const std::string& group) {
    std::string below = group;
    if (mount.root != "/" && below.starts_with(mount.root)) below = below.substr(mount.root.size());
    fs::path at = mount.mount_point;
    double least = quota_of(at, mount.unified);
    for (const fs::path& part : fs::path(below).relative_path()) {
        at /= part;
        std::error_code none;
        if (part == ".." || !fs::is_directory(at, none)) break;
        least = std::min(least, quota_of(at, mount.unified));
    }
    return least;
}

}  // namespace

double processor_quota(const fs::path& process) {
    std::vector<GroupMount> mounts;
    std::ifstream mountinfo(process / "mountinfo");
    for (std::string line; std::getline(mountinfo, line);) {
        if (auto mount = group_mount(line)) mounts.push_back(std::move(*mount));
    }
    double least = no_quota;
    std::ifstream groups(process / "cgroup");
    for (std::string line; std::getline(groups, line);) {  // "0::/group", or "4:cpu,cpuacct:/group"
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1),
                          group = line.substr(second + 1);
        for (const GroupMount& mount : mounts) {
            const bool of_this = mount.unified ? controllers.empty() : names_cpu(controllers);
            if (of_this) least = std::min(least, least_quota(mount, group));
        }
    }
    return least;
}

namespace {

/// Number of processors in the affinity mask, also on machines with more processors than a fixed
/// cpu_set_t holds.
std::int64_t processors_by_affinity() {
    for (int most = 1024; most <= 1 << 20; most *= 4) {
        const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(
            CPU_ALLOC(most), [](cpu_set_t* each) { CPU_FREE(each); });
        const std::size_t size = CPU_ALLOC_SIZE(most);
        if (set && ::sched_getaffinity(0, size, set.get()) == 0)
            return CPU_COUNT_S(size, set.get());
    }
    return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

namespace {

std::atomic<std::int64_t> sharing = 1;

}  // namespace

void share_processors(std::int64_t processes) { sharing = std::max<std::int64_t>(1, processes); }

std::int64_t usable_processors() {
    const std::int64_t by_affinity = processors_by_affinity();
    const double quota = std::ceil(processor_quota() - 1e-6);
    const std::int64_t usable =
        quota < static_cast<double>(by_affinity) ? static_cast<std::int64_t>(quota) : by_affinity;
    return std::max<std::int64_t>(1, usable / sharing);
}

std::int64_t threads_within(std::int64_t requested, const char* name) {
    const std::int64_t usable = usable_processors();
    if (requested == 0) return usable;
    if (requested <= usable) return requested;
    static std::mutex mutex;
    static std::set<std::string> warned;
    const std::lock_guard lock(mutex);
    if (warned.emplace(name).second) {
        log::warning(
            "{} = {}: this process may use {} processor(s), by its affinity and its control "
            "group's quota; {} thread(s) are used, since more would wait for each other",
            name, requested, usable, usable);
    }
    return usable;
}

}  // namespace atelier::core
