#include "atelier/core/signals.h"

#include "core/soon.h"
#include "core/test_folder.h"

#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "atelier/core/atomic_file.h"

namespace atelier::core {

namespace {

using Commands = std::vector<std::vector<std::string>>;

std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

// Outlives its shell, and must not hold the pipe that ctest waits on. Ends long after every test.
const std::string long_sleep = "sleep 300 > /dev/null 2>&1";
constexpr double long_before = 200;  // seconds: whatever took less did not wait for long_sleep

// Runs `body` in a child process, since stop flags cannot be reset; returns its exit code.
int exit_code_of(const std::function<int()>& body) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body());
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// 3 for Interrupted, 4 for another Error, 0 for none.
int outcome_of(const Commands& commands, int at_once) {
    try {
        run_processes(commands, at_once);
    } catch (const Interrupted&) {
        return 3;
    } catch (const Error&) {
        return 4;
    }
    return 0;
}

/// Sends the signal to this process once the folder has that many entries.
void raise_when(const TestFolder& folder, std::size_t entries, int signal) {
    std::thread([&folder, entries, signal] {
        soon([&] { return folder.entries() >= entries; });
        ::kill(::getpid(), signal);
    }).detach();
}

double seconds_of(const std::function<void()>& action) {
    const auto start = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Waits for a signal that ends the process, but not forever.
void wait_for_signals() {
    soon([] { return false; });
}

}  // namespace

TEST(RunProcesses, all_commands_are_run) {
    const TestFolder folder;
    Commands commands;
    for (const char* name : {"a", "b", "c", "d", "e"})
        commands.push_back({"/usr/bin/touch", (folder / name).string()});
    run_processes(commands, 2);
    EXPECT_EQ(folder.entries(), 5U);
    run_processes({}, 2);
}

TEST(RunProcesses, no_more_run_together_than_requested) {
    const TestFolder folder;
    const std::string lock = (folder / "lock").string();  // mkdir fails while another is inside
    const auto command = shell("mkdir " + lock + " && sleep 0.05 && rmdir " + lock);
    EXPECT_NO_THROW(run_processes({command, command, command}, 1));
}

TEST(RunProcesses, a_failing_command_is_named_and_stops_the_others) {
    const double seconds = seconds_of([] {
        const std::string message = error_of([] {
            run_processes(
                {shell("exec " + long_sleep), shell("exit 7"), shell("exec " + long_sleep)}, 2);
        });
        expect_contains(message, "/bin/sh -c exit 7: failed with exit code 7");
    });
    EXPECT_LT(seconds, long_before);
}

TEST(RunProcesses, exit_code_130_is_a_failure_when_no_stop_was_requested) {
    expect_contains(error_of([] { run_processes({shell("exit 130")}, 1); }), "exit code 130");
    expect_contains(error_of([] { run_processes({shell("kill -9 $$")}, 1); }), "signal 9");
}

TEST(RunProcesses, a_program_that_is_not_there_is_named) {
    expect_contains(error_of([] { run_processes({{"/nowhere/program", "x"}}, 1); }),
                    "/nowhere/program: cannot be started");
    error_of([] { run_processes({{}}, 1); });
}

TEST(RunProcesses, a_stop_reaches_the_children_and_is_an_interruption) {
    for (const std::string& script :
         {"trap 'exit 130' TERM; : > \"$0/$$\"; " + long_sleep + " & wait",
          ": > \"$0/$$\"; exec " + long_sleep}) {
        const TestFolder begun;
        std::vector<std::string> command = shell(script);
        command.push_back(begun.path().string());  // $0
        const double seconds = seconds_of([&] {
            EXPECT_EQ(exit_code_of([&] {
                          catch_stop_signals();
                          raise_when(begun, 2, SIGTERM);
                          return outcome_of({command, command}, 2);
                      }),
                      3);
        });
        EXPECT_EQ(begun.entries(), 2U);
        EXPECT_LT(seconds, long_before);
    }
}

TEST(RunProcesses, a_child_that_fails_while_stopping_is_an_error) {
    const TestFolder begun;
    EXPECT_EQ(exit_code_of([&] {
                  catch_stop_signals();
                  raise_when(begun, 1, SIGTERM);
                  return outcome_of({shell("trap 'exit 9' TERM; : > " + (begun / "1").string() +
                                           "; " + long_sleep + " & wait")},
                                    1);
              }),
              4);
}

TEST(RunProcesses, children_die_with_their_parent) {
    const TestFolder folder;
    const auto pid_file = folder / "pid";
    const pid_t parent = ::fork();
    if (parent == 0) {
        run_processes({shell("echo $$ > " + pid_file.string() + ".new; mv " + pid_file.string() +
                             ".new " + pid_file.string() + "; while :; do sleep 0.1; done")},
                      1);
        ::_exit(0);
    }
    ASSERT_TRUE(soon([&] { return std::filesystem::exists(pid_file); }));
    const pid_t child = std::stoi(read_text(pid_file));
    ::kill(parent, SIGKILL);
    ::waitpid(parent, nullptr, 0);
    const auto is_alive =
        [&] {  // a dead process that its new parent has not reaped yet is in state Z
            if (::kill(child, 0) != 0) return false;
            std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
            std::string pid, name, state;
            stat >> pid >> name >> state;
            return state != "Z" && !state.empty();
        };
    EXPECT_TRUE(soon([&] { return !is_alive(); }));
}

TEST(StopSignals, set_a_flag_and_a_second_interrupt_ends_the_process) {
    EXPECT_EQ(exit_code_of([] {
                  catch_stop_signals();
                  if (stop_requested()) return 1;
                  ::raise(SIGTERM);
                  ::raise(SIGTERM);
                  ::raise(SIGINT);
                  if (!stop_requested()) return 2;
                  ::raise(SIGINT);
                  return 3;
              }),
              130);
}

TEST(StopSignals, end_a_process_that_does_not_poll_them) {
    const double took = seconds_of([] {
        EXPECT_EQ(exit_code_of([] {
                      catch_stop_signals();
                      end_after_stop(1, resumable_message);
                      ::raise(SIGTERM);
                      wait_for_signals();
                      return 0;
                  }),
                  130);
    });
    EXPECT_GT(took, 0.9) << "it has that time to end by itself";
    const TestFolder none;
    EXPECT_EQ(exit_code_of([&] {
                  catch_stop_signals();
                  end_after_stop(1, resumable_message);
                  raise_when(none, 0, SIGINT);  // from another thread
                  wait_for_signals();
                  return 0;
              }),
              130);
}

TEST(StopSignals, do_not_end_a_process_that_acknowledges_them_or_may_take_its_time) {
    EXPECT_EQ(exit_code_of([] {
                  catch_stop_signals();
                  end_after_stop(1, resumable_message);
                  ::raise(SIGTERM);
                  acknowledge_stop();
                  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
                  return 7;
              }),
              7);
    EXPECT_EQ(exit_code_of([] {
                  catch_stop_signals();
                  end_after_stop(0, "");
                  ::raise(SIGTERM);
                  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
                  return 7;
              }),
              7);
}

TEST(StopSignals, a_second_one_ends_a_process_unless_it_is_the_echo_of_the_first) {
    EXPECT_EQ(exit_code_of([] {
                  catch_stop_signals();
                  ::raise(SIGTERM);
                  ::raise(SIGTERM);  // as `timeout` sends it, to the process and to its group
                  std::this_thread::sleep_for(std::chrono::milliseconds(400));
                  ::raise(SIGTERM);
                  return 3;
              }),
              130);
}

}  // namespace atelier::core
