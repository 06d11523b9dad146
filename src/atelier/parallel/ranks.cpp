#include "atelier/parallel/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>

#include "atelier/backends/torch/error_message.h"
#include "atelier/core/environment.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/processors.h"
#include "atelier/core/signals.h"
#include "atelier/parallel/gloo_group.h"

namespace atelier::parallel {

namespace {

constexpr std::int64_t seconds_to_meet = 300;

/// The processors that this process may run on, as the system writes them.
std::string affinity() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("Cpus_allowed_list:")) return line;
    }
    return "";
}

std::string line_of_file(const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::uint64_t random_token() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) ^ device();
}

Tensor bytes_of(const std::string& text, std::int64_t size) {
    Tensor bytes = at::zeros({size}, at::kByte);
    std::memcpy(bytes.mutable_data_ptr<std::uint8_t>(), text.data(),
                std::min(text.size(), static_cast<std::size_t>(size)));
    return bytes;
}

}  // namespace

struct Ranks::Company {
    std::shared_ptr<SharedTexts> texts;
    std::unique_ptr<Monitor> monitor;
    std::unique_ptr<Group> group;         // for tensors on the host
    std::unique_ptr<Group> device_group;  // for those on GPUs, if there is one
};

Ranks::Ranks() = default;

Ranks::Ranks(const Place& place) : place_(place), local_rank_(place.local_rank.value_or(0)) {
    if (place.alone()) return;
    company_ = std::make_unique<Company>();
    const Identity self{place.rank, place.world, core::host_name(), ::getpid()};
    company_->texts = meet(place, seconds_to_meet);
    constexpr std::chrono::seconds within{seconds_to_meet};
    if (place.rank == 0) {
        Descriptor listener = listen_on(0, is_loopback(place.master_address));
        const std::uint64_t token = random_token();
        company_->texts->set("monitor", fmt::format("{} {}", port_of(listener), token));
        company_->monitor = std::make_unique<Monitor>(self, std::move(listener), token, within);
    } else {
        const std::string text = company_->texts->get("monitor");
        char* rest = nullptr;
        const auto port = static_cast<std::uint16_t>(std::strtoul(text.c_str(), &rest, 10));
        const std::uint64_t token = std::strtoull(rest, nullptr, 10);
        company_->monitor =
            std::make_unique<Monitor>(self, connect_to(place.master_address, port, within), token);
    }
    core::end_after_stop(0, core::resumable_message);  // all stop together, after the same update
    together([&] { company_->group = make_gloo_group(place_, company_->texts); });
    // Ranks that may use the same processors share them.
    const std::string machine = self.host + line_of_file("/proc/sys/kernel/random/boot_id"),
                      processors = machine + affinity();
    int here = 0, sharing = 0, rank = 0;
    std::vector<std::string> machines;
    for (const std::string& other : gather(machine + "\n" + processors)) {
        const std::string name = other.substr(0, other.find('\n'));
        if (name == machine && rank < place_.rank) ++here;
        if (other.substr(other.find('\n') + 1) == processors) ++sharing;
        if (std::ranges::find(machines, name) == machines.end()) machines.push_back(name);
        ++rank;
    }
    machines_ = static_cast<int>(machines.size());
    if (!place.local_rank) local_rank_ = here;
    core::share_processors(sharing);
}

Ranks::~Ranks() = default;

Ranks& Ranks::alone() {
    static Ranks ranks;
    return ranks;
}

std::string Ranks::description() const {
    if (is_alone()) return "one process";
    return fmt::format("{} ranks on {} machine{}, started by {}, over {}", world(), machines_,
                       machines_ == 1 ? "" : "s", place_.launcher,
                       (company_->device_group ? company_->device_group : company_->group)->name());
}

template <class Operation>
void Ranks::together(const Operation& operation) {
    try {
        operation();
    } catch (const core::Error&) {
        throw;
    } catch (const std::exception& error) {
        company_->monitor->await_end(backends::error_message(error));
    }
}

template <class Operation>
void Ranks::call(const Operation& operation, Tensor& values) {
    if (is_alone()) return;
    together([&] {
        for (const auto* group : {&company_->device_group, &company_->group}) {
            if (*group && (*group)->takes(values.device().type()))
                return operation(**group, values);
        }
        Tensor copy = values.to(at::kCPU);
        operation(*company_->group, copy);
        values.copy_(copy);
    });
}

void Ranks::use_device(const at::Device& device) {
    if (is_alone() || company_->device_group) return;
    const NcclModule module =
        device.is_cuda() ? open_nccl_module() : NcclModule{.problem = "NCCL is for NVIDIA's GPUs"};
    bool all = true;
    std::string problem;
    for (const std::string& other :
         gather(module.make ? "" : device.str() + ": " + module.problem)) {
        all = all && other.empty();
        if (problem.empty()) problem = other;
    }
    if (all) {
        together(
            [&] { company_->device_group = make_nccl_group(module, place_, company_->texts); });
    } else if (!device.is_cpu()) {
        core::log::info("ranks: gradients are copied from {} to the host, where {} sums them ({})",
                        device.str(), company_->group->name(), problem);
    }
}

void Ranks::sum(Tensor& values) {
    call([](Group& group, const Tensor& all) { group.sum(all); }, values);
}

void Ranks::broadcast(Tensor& values, int from) {
    call([from](Group& group, const Tensor& all) { group.broadcast(all, from); }, values);
}

double Ranks::broadcast(double value) {
    if (is_alone()) return value;
    Tensor one = at::full({1}, value, at::kDouble);
    broadcast(one);
    return one.item<double>();
}

Tensor Ranks::gather(const Tensor& row) {
    const Tensor here = row.to(at::kCPU).contiguous();
    if (is_alone()) return here.unsqueeze(0);
    Tensor rows;
    together([&] { rows = company_->group->gather(here); });
    return rows;
}

std::vector<std::string> Ranks::gather(const std::string& bytes) {
    if (is_alone()) return {bytes};
    // Each row begins with the length. Where one does not fit, all know it and gather again.
    constexpr std::int64_t head = sizeof(std::uint64_t);
    for (;;) {
        std::string row(head, '\0');
        const std::uint64_t size = bytes.size();
        std::memcpy(row.data(), &size, head);
        const Tensor rows = gather(bytes_of(row + bytes, row_bytes_));
        std::vector<std::string> all;
        std::int64_t longest = 0;
        for (int r = 0; r < world(); ++r) {
            const auto* from = rows[r].const_data_ptr<std::uint8_t>();
            std::uint64_t length = 0;
            std::memcpy(&length, from, head);
            longest = std::max(longest, static_cast<std::int64_t>(length) + head);
            if (longest <= row_bytes_)
                all.emplace_back(reinterpret_cast<const char*>(from) + head, length);
        }
        if (longest <= row_bytes_) return all;
        row_bytes_ = 2 * longest;
    }
}

std::string Ranks::from_leader(const std::string& text) {
    return is_alone() ? text : gather(text).front();
}

std::int64_t Ranks::smallest(std::int64_t value) {
    return gather(at::full({1}, value, at::kLong)).min().item<std::int64_t>();
}

void Ranks::barrier() {
    if (!is_alone()) gather(at::zeros({1}, at::kLong));
}

void Ranks::set_position(Position position) {
    if (company_) company_->monitor->set_position(std::move(position));
}

void Ranks::leave(int code, const std::string& why) {
    if (company_) company_->monitor->leave(code, why);
}

void Ranks::announce(const std::string& event) {
    if (company_) company_->monitor->announce(event);
}

void Ranks::await(const std::string& event) {
    if (company_) company_->monitor->await(event);
}

void as_rank(Ranks& ranks, const std::function<void()>& work) {
    try {
        work();
    } catch (const RankLost& lost) {
        ranks.leave(rank_lost, lost.what());
        throw;
    } catch (const core::Interrupted& stop) {
        ranks.leave(130, stop.what());
        throw;
    } catch (const core::UsageError& error) {
        ranks.leave(2, error.what());
        throw;
    } catch (const std::exception& error) {
        ranks.leave(1, backends::error_message(error));
        throw;
    }
    ranks.leave(0, "");
}

}  // namespace atelier::parallel
