#pragma once

#include <chrono>
#include <cstdint>
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

/// 75 s as "1 min 15 s", 4000 s as "1 h 06 min".
std::string format_duration(double seconds);

}  // namespace atelier::core
