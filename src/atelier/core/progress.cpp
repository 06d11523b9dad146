#include "atelier/core/progress.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "atelier/core/terminal.h"

namespace atelier::core {

namespace {

constexpr std::chrono::milliseconds between_redraws{200};

thread_local const std::function<void(const ProgressUpdate&)>* observer_of_thread = nullptr;

// Three significant digits, without an exponent for large rates.
std::string format_rate(double rate) {
    return rate >= 100 ? fmt::format("{:.0f}", rate) : fmt::format("{:.3g}", rate);
}

// `[####----]` in the free columns; empty when they are too few.
std::string bar(double fraction, int columns) {
    const int cells = std::min(columns - 3, 40);
    if (cells < 5) return "";
    const int filled = static_cast<int>(std::lround(fraction * cells));
    return fmt::format("[{}{}] ", std::string(filled, '#'), std::string(cells - filled, '-'));
}

// At most `columns` characters, never cutting through a UTF-8 character.
std::string cut(std::string text, int columns) {
    std::size_t at = 0;
    for (int shown = 0; at < text.size(); ++at) {
        const bool begins_character = (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80;
        if (begins_character && ++shown > columns) break;
    }
    text.resize(at);
    return text;
}

}  // namespace

Progress::Progress(std::string label, std::int64_t total, std::string unit, std::int64_t done)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      first_(done),
      done_(done),
      terminal_(terminal::is_terminal()),
      start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
    if (terminal_) terminal::clear_bar();
}

void Progress::update(std::int64_t done, const std::string& note) {
    done_ = done;
    if (observer_of_thread) (*observer_of_thread)({label_, done, total_, unit_, note});
    if (!terminal_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - drawn_ < between_redraws) return;
    drawn_ = now;
    draw(note);
}

void Progress::draw(const std::string& note) const {
    const double seconds = std::chrono::duration<double>(drawn_ - start_).count();
    const double fraction =
        total_ > 0 ? std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0)
                   : 0;
    const double rate = seconds > 0 ? static_cast<double>(done_ - first_) / seconds : 0;
    const std::string head = fmt::format("{} {:3.0f}% ", label_, std::floor(100 * fraction));
    std::string tail = fmt::format("{}/{} {}", done_, total_, unit_);
    if (rate > 0) {
        const double left = static_cast<double>(std::max<std::int64_t>(total_ - done_, 0)) / rate;
        tail += fmt::format(", {} {}/s, {} left", format_rate(rate), unit_, format_duration(left));
    }
    if (!note.empty()) tail += ", " + note;
    // Leave the last column free: writing there makes some terminals wrap.
    const int columns = terminal::width() - 1;
    const int free_columns = columns - static_cast<int>(head.size() + tail.size());
    terminal::show_bar(cut(head + bar(fraction, free_columns) + tail, columns));
}

ProgressObserver::ProgressObserver(std::function<void(const ProgressUpdate&)> observer)
    : observer_(std::move(observer)), before_(observer_of_thread) {
    if (observer_) observer_of_thread = &observer_;
}

ProgressObserver::~ProgressObserver() { observer_of_thread = before_; }

std::string format_duration(double seconds) {
    constexpr double longest = 1e15;  // larger values are meaningless and would not fit an integer
    const auto whole = static_cast<std::int64_t>(
        std::lround(std::clamp(std::isnan(seconds) ? 0 : seconds, 0.0, longest)));
    if (whole < 60) return fmt::format("{} s", whole);
    if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
    if (whole < 86400) return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
    return fmt::format("{} d {:02} h", whole / 86400, whole % 86400 / 3600);
}

}  // namespace atelier::core
