#include "atelier/core/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>

#include "atelier/core/error.h"

namespace atelier::core {

namespace {

constexpr int interrupted_exit_code = 130;
constexpr std::chrono::milliseconds poll_interval{20};

std::atomic<bool> stop = false;
std::atomic<std::chrono::steady_clock::rep> deadline =
    std::chrono::steady_clock::rep{std::numeric_limits<std::int64_t>::max()};
std::atomic<bool> interrupted_once = false;
std::atomic<std::int64_t> first_signal = 0;  // milliseconds; 0: no signal yet
std::atomic<unsigned> seconds_to_end = 3;
std::atomic<const char*> end_message = "interrupted";
std::atomic<bool> reload = false;
std::atomic<bool (*)()> extra_stop_check = nullptr;
static_assert(std::atomic<bool>::is_always_lock_free,
              "a signal handler may only touch lock-free atomics");

// `timeout` sends its signal to the process and to its group, and a terminal's signal also reaches
// the children, to whom the parent forwards it: two signals within so short a time count as one.
constexpr std::int64_t same_signal_milliseconds = 200;

std::int64_t milliseconds_now() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1'000'000 + 1;
}

void on_stop_signal(int signal) {
    stop = true;
    if (signal == SIGINT && interrupted_once.exchange(true)) ::_exit(interrupted_exit_code);
    std::int64_t none = 0;
    const std::int64_t now = milliseconds_now();
    if (!first_signal.compare_exchange_strong(none, now)) {
        if (now > none + same_signal_milliseconds) ::_exit(interrupted_exit_code);
        return;
    }
    if (seconds_to_end > 0) ::alarm(seconds_to_end);
}

// Only async-signal-safe calls; the message is already in memory.
void on_alarm(int) {
    const char* message = end_message;
    for (const char* part : {"atelier: ", message, "\n"}) {
        [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, part, std::strlen(part));
    }
    ::_exit(interrupted_exit_code);
}

void catch_signals(void (*handler)(int), std::initializer_list<int> signals) {
    struct sigaction action{};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;  // libraries need not expect interrupted calls
    sigemptyset(&action.sa_mask);
    for (const int signal : signals) ::sigaction(signal, &action, nullptr);
}

struct Child {
    pid_t pid;
    const std::vector<std::string>* command;
};

std::string command_text(const std::vector<std::string>& command) {
    return fmt::format("{}", fmt::join(command, " "));
}

// Between fork and exec only async-signal-safe calls are allowed: another thread of the parent may
// have held a lock.
[[noreturn]] void exec_child(char* const* arguments, pid_t parent, int report) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);  // the parent died before prctl
    ::execv(arguments[0], arguments);
    const int problem = errno;
    [[maybe_unused]] const ssize_t ignored = ::write(report, &problem, sizeof problem);
    ::_exit(127);
}

// The errno of exec, 0 when the program started: the pipe is closed on success.
int wait_for_exec(int report) {
    int problem = 0;
    while (::read(report, &problem, sizeof problem) < 0 && errno == EINTR) {
    }
    ::close(report);
    return problem;
}

Child start(const std::vector<std::string>& command) {
    std::vector<char*> arguments;
    for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    int report[2];
    if (::pipe2(report, O_CLOEXEC) != 0)
        fail("{}: cannot be started ({})", command[0], std::strerror(errno));
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid == 0) exec_child(arguments.data(), parent, report[1]);
    const int fork_problem = errno;
    ::close(report[1]);
    const int problem = pid < 0 ? fork_problem : wait_for_exec(report[0]);
    if (pid < 0) ::close(report[0]);
    if (pid > 0 && problem != 0) ::waitpid(pid, nullptr, 0);
    if (problem != 0) fail("{}: cannot be started ({})", command[0], std::strerror(problem));
    return {pid, &command};
}

std::string exit_description(int status) {
    if (WIFSIGNALED(status))
        return fmt::format("was ended by signal {} ({})", WTERMSIG(status),
                           ::strsignal(WTERMSIG(status)));
    return fmt::format("failed with exit code {}", WEXITSTATUS(status));
}

// Whether a child ended because it was asked to: by exit code, or by the signal before it had
// installed a handler.
bool stopped_on_request(int status) {
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGTERM || WTERMSIG(status) == SIGINT;
    return WEXITSTATUS(status) == interrupted_exit_code;
}

class ProcessPool {
public:
    ~ProcessPool() { finish(); }

    std::size_t running() const { return children_.size(); }

    void add(const std::vector<std::string>& command) { children_.push_back(start(command)); }

    /// Collects children that ended and waits a little. Remembers the first failure and then stops
    /// the others.
    void reap() {
        if (stop_requested()) stop_children();
        std::erase_if(children_, [&](const Child& child) {
            int status = 0;
            const pid_t ended = ::waitpid(child.pid, &status, WNOHANG);
            if (ended == 0 || (ended < 0 && errno == EINTR)) return false;
            const bool stopped = (stopping_ || stop_requested()) && stopped_on_request(status);
            unfinished_ = unfinished_ || stopped;
            if (status != 0 && !stopped && failure_.empty()) {
                failure_ = fmt::format("{}: {}; its own messages above say why",
                                       command_text(*child.command), exit_description(status));
            }
            return true;
        });
        if (!failure_.empty()) stop_children();
        if (!children_.empty()) std::this_thread::sleep_for(poll_interval);
    }

    /// Stops all children and waits for them.
    void finish() {
        stop_children();
        while (!children_.empty()) reap();
    }

    const std::string& failure() const { return failure_; }

    /// Whether a command was stopped before it finished.
    bool unfinished() const { return unfinished_; }

private:
    void stop_children() {
        if (std::exchange(stopping_, true)) return;
        acknowledge_stop();  // the children end by themselves
        for (const Child& child : children_) ::kill(child.pid, SIGTERM);
    }

    std::vector<Child> children_;
    std::string failure_;
    bool stopping_ = false, unfinished_ = false;
};

}  // namespace

void catch_stop_signals() {
    catch_signals(on_alarm, {SIGALRM});
    catch_signals(on_stop_signal, {SIGINT, SIGTERM});
    ::signal(SIGXFSZ,
             SIG_IGN);  // beyond `ulimit -f`, write returns an error that is reported
}

void request_stop() { stop = true; }

void stop_on_user_signal() {
    catch_signals([](int) { stop = true; }, {SIGUSR1});
}

void ignore_broken_pipes() { ::signal(SIGPIPE, SIG_IGN); }

void end_after_stop(unsigned seconds, const char* message) {
    end_message = message;
    seconds_to_end = seconds;
}

void acknowledge_stop() {
    if (first_signal != 0) ::alarm(0);
}

bool stop_requested() {
    const auto check = extra_stop_check.load();
    return stop || std::chrono::steady_clock::now().time_since_epoch().count() >= deadline ||
           (check && check());
}

void set_stop_check(bool (*check)()) { extra_stop_check = check; }

void stop_after(double seconds) {
    const auto wait = std::chrono::duration_cast<std::chrono::steady_clock::duration>(
        std::chrono::duration<double>(seconds));
    deadline = (std::chrono::steady_clock::now() + wait).time_since_epoch().count();
}

void catch_reload_signal() {
    catch_signals([](int) { reload = true; }, {SIGHUP});
}

bool reload_requested() { return reload.exchange(false); }

void run_processes(const std::vector<std::vector<std::string>>& commands, int max_parallel) {
    if (std::ranges::any_of(commands, &std::vector<std::string>::empty))
        fail("a command without a program cannot be run");
    ProcessPool pool;
    std::size_t next = 0;
    const auto limit = static_cast<std::size_t>(std::max(max_parallel, 1));
    while (pool.failure().empty() && !stop_requested() &&
           (next < commands.size() || pool.running() > 0)) {
        while (next < commands.size() && pool.running() < limit) pool.add(commands[next++]);
        pool.reap();
    }
    pool.finish();
    if (!pool.failure().empty()) throw Error(pool.failure());
    if (pool.unfinished() || next < commands.size())
        throw Interrupted("stopped; run the same command again to go on");
}

}  // namespace atelier::core
