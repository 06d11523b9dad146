#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/soon.h"
#include "core/test_folder.h"

/// Runs the program as a process and checks its exit code, output and files.
namespace atelier::end_to_end {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;
using core::soon;

inline Arguments with(Arguments arguments, const Arguments& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

struct Outcome {
    int code = 0;  // exit code, or 128 + signal
    std::string out, err;
};

inline std::string text_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// A temporary folder whose paths are words of a command line.
class Folder : public core::TestFolder {
public:
    std::string operator/(const std::string& name) const { return (path() / name).string(); }
};

/// A running process of the program; its output goes to files in `folder`.
class Process {
public:
    /// `environment` is added to this process's own.
    Process(const Arguments& arguments, const Folder& folder,
            const std::map<std::string, std::string>& environment = {},
            const char* program = ATELIER_PROGRAM)
        : out_(folder / ".out"), err_(folder / ".err") {
        pid_ = ::fork();
        if (pid_ != 0) return;
        // Its own process group, so that signals also reach the students' processes.
        ::setpgid(0, 0);
        redirect(out_, STDOUT_FILENO);
        redirect(err_, STDERR_FILENO);
        for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
        std::vector<char*> words{const_cast<char*>(program)};
        for (const std::string& argument : arguments)
            words.push_back(const_cast<char*>(argument.c_str()));
        words.push_back(nullptr);
        if (::chdir(ATELIER_SOURCE_DIR) == 0) ::execv(program, words.data());
        ::_exit(127);
    }

    Process(Process&& other) noexcept
        : out_(std::move(other.out_)),
          err_(std::move(other.err_)),
          pid_(std::exchange(other.pid_, 0)),
          waited_(other.waited_) {}
    Process& operator=(Process&&) = delete;
    /// A process that nobody waited for does not outlive its test.
    ~Process() {
        if (pid_ == 0 || waited_) return;
        for (const pid_t all : {-pid_, pid_}) ::kill(all, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }

    void signal(int number) const { ::kill(pid_, number); }
    pid_t pid() const { return pid_; }

    /// Seconds of processor time that it has used; the figure stays when it has ended.
    double processor_seconds() const {
        std::string stat = text_of("/proc/" + std::to_string(pid_) + "/stat");
        stat.erase(0, stat.rfind(')') + 1);  // the name may hold anything
        std::istringstream fields(stat);
        std::string skipped;
        for (int i = 0; i < 11; ++i) fields >> skipped;
        double user = 0, system = 0;
        fields >> user >> system;
        return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
    }

    bool has_ended() const {
        siginfo_t about{};
        ::waitid(P_PID, static_cast<id_t>(pid_), &about, WEXITED | WNOHANG | WNOWAIT);
        return about.si_pid != 0;
    }

    Outcome wait() const {
        int status = 0;
        ::waitpid(pid_, &status, 0);
        waited_ = true;
        Outcome outcome{WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
                        text_of(out_), text_of(err_)};
        fs::remove(out_);
        fs::remove(err_);
        return outcome;
    }

private:
    static void redirect(const std::string& path, int descriptor) {
        const int file = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
        ::dup2(file, descriptor);
        ::close(file);
    }

    std::string out_, err_;
    pid_t pid_ = 0;
    mutable bool waited_ = false;
};

inline Outcome run(const Arguments& arguments) {
    const Folder folder;
    return Process(arguments, folder).wait();
}

/// Runs the program and expects success.
inline Outcome succeed(const Arguments& arguments) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
}

/// A data set of 800 points in 8 labelled clusters, written once; small, so that evaluations are
/// fast.
inline std::string small_points() {
    static const Folder folder;
    const std::string path = folder / "points.safetensors";
    if (fs::exists(path)) return path;
    constexpr std::int64_t count = 800, classes = 8;
    std::vector<float> points;
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < count; ++i) {
        const double angle = static_cast<double>(i % classes) * 0.785398,
                     wobble = 0.1 * std::sin(static_cast<double>(i) * 1.7);
        points.push_back(static_cast<float>(std::cos(angle) + wobble));
        points.push_back(
            static_cast<float>(std::sin(angle) + 0.1 * std::cos(static_cast<double>(i) * 2.3)));
        labels.push_back(i % classes);
    }
    const std::size_t labels_at = points.size() * sizeof(float),
                      end = labels_at + labels.size() * sizeof(std::int64_t);
    std::string header = R"({"points":{"dtype":"F32","shape":[800,2],"data_offsets":[0,)" +
                         std::to_string(labels_at) +
                         R"(]},"labels":{"dtype":"I64","shape":[800],"data_offsets":[)" +
                         std::to_string(labels_at) + "," + std::to_string(end) + "]}}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const std::uint64_t size = header.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), sizeof size);
    file.write(header.data(), static_cast<std::streamsize>(size));
    file.write(reinterpret_cast<const char*>(points.data()),
               static_cast<std::streamsize>(labels_at));
    file.write(reinterpret_cast<const char*>(labels.data()),
               static_cast<std::streamsize>(end - labels_at));
    return path;
}

/// `atelier COMMAND configs/toy2d.toml`, reduced to run within seconds, writing to `output`.
inline Arguments tiny(const std::string& command, const std::string& output,
                      const Arguments& more = {}) {
    Arguments all{command,
                  "configs/toy2d.toml",
                  "output=" + output,
                  "data.path=" + small_points(),
                  "seed=3",
                  "network.hidden=32",
                  "network.blocks=2",
                  "teacher.steps=40",
                  "teacher.batch=64",
                  "partition.students=2",
                  "pairs.count=200",
                  "pairs.steps=4",
                  "pairs.shard=64",
                  "dm.steps=12",
                  "dm.batch=32",
                  "adm.steps=8",
                  "adm.batch=32",
                  "probe.every=5",
                  "probe.count=64",
                  "evaluate.count=200",
                  "checkpoint_seconds=0"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

/// Paths and contents of the students' and the teacher's weights in a run.
inline std::map<std::string, std::string> weights_of(const std::string& run) {
    std::map<std::string, std::string> found;
    if (!fs::exists(run)) return found;
    for (const auto& entry : fs::recursive_directory_iterator(run)) {
        if (entry.path().filename() == "model.safetensors")
            found[entry.path().lexically_relative(run).string()] = text_of(entry.path());
    }
    return found;
}

using core::expect_contains;

}  // namespace atelier::end_to_end
