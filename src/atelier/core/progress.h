#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace atelier::core {

/// One line on standard error with a bar, rate and time left, redrawn a few times a second; draws
/// nothing when standard error is not a terminal. Log lines printed meanwhile do not break it.
class Progress {
public:
    /// `unit` is what is counted, e.g. "steps" or "images"; counting starts at `done` of `total`.
    Progress(std::string label, std::int64_t total, std::string unit, std::int64_t done = 0);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// Sets the number done; `note` is shown at the end of the line (e.g. the loss).
    void update(std::int64_t done, const std::string& note = "");

private:
    void draw(const std::string& note) const;

    std::string label_, unit_;
    std::int64_t total_, first_, done_;
    bool terminal_;
    std::chrono::steady_clock::time_point start_, drawn_{};
};

/// An update of a Progress. The texts live as long as the call.
struct ProgressUpdate {
    const std::string& label;
    std::int64_t done, total;
    const std::string& unit;
    const std::string& note;
};

/// While it exists, `observer` hears every update of the Progress objects of this thread, whether
/// or not there is a terminal: for programs that run Atelier within their own process.
class ProgressObserver {
public:
    explicit ProgressObserver(std::function<void(const ProgressUpdate&)> observer);
    ~ProgressObserver();
    ProgressObserver(const ProgressObserver&) = delete;
    ProgressObserver& operator=(const ProgressObserver&) = delete;

private:
    std::function<void(const ProgressUpdate&)> observer_;
    const std::function<void(const ProgressUpdate&)>* before_;
};

/// 75 s as "1 min 15 s", 4000 s as "1 h 06 min".
std::string format_duration(double seconds);

}  // namespace atelier::core
