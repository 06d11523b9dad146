#include "atelier/core/processors.h"

#include "core/test_folder.h"

#include <sched.h>

#include <cmath>
#include <fstream>

namespace atelier::core {

namespace {

void write_group_file(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
}

/// A procfs folder of a process in `group`, with control groups mounted below `folder`/cgroup.
class Groups {
public:
    explicit Groups(const TestFolder& folder)
        : process_(folder / "process"), root_(folder / "cgroup") {
        std::filesystem::create_directories(process_);
    }

    void mount(const std::string& place, const std::string& type, const std::string& options,
               const std::string& root = "/") {
        std::ofstream(process_ / "mountinfo", std::ios::app)
            << "36 35 0:30 " << root << " " << (root_ / place).string() << " rw,nosuid shared:9 - "
            << type << " source " << options << "\n";
    }
    void in(const std::string& line) {
        std::ofstream(process_ / "cgroup", std::ios::app) << line << "\n";
    }
    void set(const std::string& file, const std::string& text) {
        write_group_file(root_ / file, text);
    }
    double quota() const { return processor_quota(process_); }

private:
    std::filesystem::path process_, root_;
};

}  // namespace

TEST(ProcessorQuota, is_none_where_none_is_set) {
    const TestFolder folder;
    EXPECT_TRUE(std::isinf(processor_quota(folder / "nothing")));
    Groups groups(folder);
    groups.mount("", "cgroup2", "rw");
    groups.in("0::/a");
    EXPECT_TRUE(std::isinf(groups.quota()));
    groups.set("a/cpu.max", "max 100000\n");
    EXPECT_TRUE(std::isinf(groups.quota()));
}

TEST(ProcessorQuota, of_version_2_is_the_minimum_over_the_groups_around) {
    const TestFolder folder;
    Groups groups(folder);
    groups.mount("", "cgroup2", "rw");
    groups.in("0::/kube/pod/box");
    groups.set("kube/cpu.max", "max 100000\n");
    groups.set("kube/pod/cpu.max", "250000 100000\n");
    groups.set("kube/pod/box/cpu.max", "400000 100000\n");
    EXPECT_DOUBLE_EQ(groups.quota(), 2.5);
    groups.set("kube/pod/other/cpu.max", "1000 100000\n");
    EXPECT_DOUBLE_EQ(groups.quota(), 2.5) << "another group's is not ours";
}

TEST(ProcessorQuota, of_a_container_is_read_at_its_visible_root) {
    const TestFolder folder;
    Groups groups(folder);
    groups.mount("", "cgroup2", "rw");
    groups.in("0::/");
    groups.set("cpu.max", "150000 100000\n");
    EXPECT_DOUBLE_EQ(groups.quota(), 1.5);
}

TEST(ProcessorQuota, of_version_1_is_found_with_and_without_a_namespace) {
    const TestFolder folder;
    Groups groups(folder);
    groups.mount("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct", "/docker/1f");
    groups.mount("memory", "cgroup", "rw,memory");
    groups.in("5:memory:/docker/1f");
    groups.in("4:cpu,cpuacct:/docker/1f/inner");
    groups.set("cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
    groups.set("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    groups.set("memory/cpu.cfs_quota_us", "1000\n");
    groups.set("memory/cpu.cfs_period_us", "100000\n");
    EXPECT_DOUBLE_EQ(groups.quota(), 2) << "the group is the mount's root";
    groups.set("cpu,cpuacct/inner/cpu.cfs_quota_us", "50000\n");
    groups.set("cpu,cpuacct/inner/cpu.cfs_period_us", "100000\n");
    EXPECT_DOUBLE_EQ(groups.quota(), 0.5);
    groups.set("cpu,cpuacct/inner/cpu.cfs_quota_us", "-1\n");
    EXPECT_DOUBLE_EQ(groups.quota(), 2);
}

TEST(ProcessorQuota, of_mixed_hierarchies_and_paths_with_spaces) {
    const TestFolder folder;
    Groups groups(folder);
    groups.mount("a\\040b", "cgroup", "rw,cpu");
    groups.mount("unified", "cgroup2", "rw");
    groups.in("0::/user");
    groups.in("3:cpu:/user");
    groups.set("a b/user/cpu.cfs_quota_us", "300000\n");
    groups.set("a b/user/cpu.cfs_period_us", "100000\n");
    EXPECT_DOUBLE_EQ(groups.quota(), 3);
}

TEST(ProcessorQuota, is_none_where_files_hold_something_else) {
    const TestFolder folder;
    Groups groups(folder);
    groups.mount("", "cgroup2", "rw");
    groups.in("nonsense");
    groups.in("0::/../../etc");
    groups.set("cpu.max", "many\n");
    EXPECT_TRUE(std::isinf(groups.quota()));
    groups.set("cpu.max", "0 0\n");
    EXPECT_TRUE(std::isinf(groups.quota()));
}

TEST(Threads, are_no_more_than_the_processors_that_may_be_used) {
    cpu_set_t before;
    ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; ++i) {
        if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
    }
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(usable_processors(), 1);
    EXPECT_EQ(threads_within(0, "threads"), 1);
    EXPECT_EQ(threads_within(1, "threads"), 1);
    testing::internal::CaptureStderr();
    EXPECT_EQ(threads_within(16, "some.threads"), 1);
    EXPECT_EQ(threads_within(1000, "some.threads"), 1);
    const std::string output = testing::internal::GetCapturedStderr();
    expect_contains(output, "some.threads = 16");
    EXPECT_EQ(output.find("1000"), std::string::npos) << "it is said once";
    ::sched_setaffinity(0, sizeof before, &before);
}

}  // namespace atelier::core
