#include "atelier/parallel/gloo_group.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "atelier/backends/torch/error_message.h"
#include "atelier/core/environment.h"
#include "atelier/parallel/c10d_group.h"
#include "atelier/parallel/nccl_module.h"
#include "atelier/parallel/rank_lost.h"
#include "atelier/parallel/sockets.h"

namespace atelier::parallel {

namespace {

class StoredTexts : public SharedTexts {
public:
    explicit StoredTexts(c10::intrusive_ptr<c10d::Store> store) : store_(std::move(store)) {}
    void set(const std::string& name, const std::string& text) override {
        store_->set(name, std::vector<std::uint8_t>(text.begin(), text.end()));
    }
    std::string get(const std::string& name) override {
        try {
            const std::vector<std::uint8_t> text = store_->get(name);
            return {text.begin(), text.end()};
        } catch (const std::exception& error) {
            throw RankLost("rank 0 is gone, or did not start: " + backends::error_message(error));
        }
    }
    const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }

private:
    c10::intrusive_ptr<c10d::Store> store_;
};

c10::intrusive_ptr<c10d::Backend> gloo_backend(const Place& place,
                                               const c10::intrusive_ptr<c10d::Store>& store) {
    auto options = c10d::ProcessGroupGloo::Options::create(operation_timeout);
    const auto interface = core::environment("GLOO_SOCKET_IFNAME");
    options->devices.push_back(
        interface ? c10d::ProcessGroupGloo::createDeviceForInterface(*interface)
                  : c10d::ProcessGroupGloo::createDeviceForHostname(
                        address_towards(place.master_address, place.master_port)));
    return c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", store), place.rank, place.world, options);
}

class GlooGroup : public C10dGroup {
public:
    using C10dGroup::C10dGroup;

    std::string name() const override { return "Gloo"; }
    bool takes(at::DeviceType device) const override { return device == at::kCPU; }
};

}  // namespace

std::shared_ptr<SharedTexts> meet(const Place& place, std::int64_t seconds) {
    c10d::TCPStoreOptions options;
    options.port = place.master_port;
    options.isServer = place.rank == 0 && !place.agent_store;
    options.waitWorkers = false;
    options.timeout = std::chrono::seconds(seconds);
    Descriptor listener;
    if (options.isServer) {
        listener = listen_on(place.master_port, is_loopback(place.master_address));
        options.masterListenFd = listener.release();  // the store's from here on
    }
    try {
        auto store = c10::make_intrusive<c10d::TCPStore>(place.master_address, options);
        return std::make_shared<StoredTexts>(c10::make_intrusive<c10d::PrefixStore>(
            "atelier/" + place.generation, std::move(store)));
    } catch (const std::exception& error) {
        throw RankLost(
            fmt::format("rank {} of {} ({}) did not find rank 0 at {}:{} within {} s ({})",
                        place.rank, place.world, place.launcher, place.master_address,
                        place.master_port, seconds, backends::error_message(error)));
    }
}

std::unique_ptr<Group> make_gloo_group(const Place& place,
                                       const std::shared_ptr<SharedTexts>& texts) {
    return std::make_unique<GlooGroup>(
        gloo_backend(place, dynamic_cast<StoredTexts&>(*texts).store()));
}

std::unique_ptr<Group> make_nccl_group(const NcclModule& module, const Place& place,
                                       const std::shared_ptr<SharedTexts>& texts) {
    const auto& store = dynamic_cast<StoredTexts&>(*texts).store();
    return std::unique_ptr<Group>(module.make(&store, place.rank, place.world));
}

}  // namespace atelier::parallel
