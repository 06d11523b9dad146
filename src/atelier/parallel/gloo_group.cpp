#include "atelier/parallel/gloo_group.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "atelier/backends/torch/error_message.h"
#include "atelier/core/environment.h"
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

class GlooGroup : public Group {
public:
    GlooGroup(const Place& place, const c10::intrusive_ptr<c10d::Store>& store) {
        auto options = c10d::ProcessGroupGloo::Options::create(operation_timeout);
        const auto interface = core::environment("GLOO_SOCKET_IFNAME");
        options->devices.push_back(
            interface ? c10d::ProcessGroupGloo::createDeviceForInterface(*interface)
                      : c10d::ProcessGroupGloo::createDeviceForHostname(
                            address_towards(place.master_address, place.master_port)));
        gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(
            c10::make_intrusive<c10d::PrefixStore>("gloo", store), place.rank, place.world,
            options);
    }

    std::string name() const override { return "Gloo"; }
    bool takes(at::DeviceType device) const override { return device == at::kCPU; }

    void sum(Tensor values) override {
        std::vector<Tensor> one{std::move(values)};
        gloo_->allreduce(one)->wait();
    }
    void broadcast(Tensor values, int from) override {
        std::vector<Tensor> one{std::move(values)};
        c10d::BroadcastOptions options;
        options.rootRank = from;
        gloo_->broadcast(one, options)->wait();
    }
    Tensor gather(const Tensor& row) override {
        Tensor rows = at::empty({gloo_->getSize() * row.numel()}, row.options()), mine = row;
        gloo_->_allgather_base(rows, mine)->wait();
        return rows.view({gloo_->getSize(), row.numel()});
    }

private:
    c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
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
    return std::make_unique<GlooGroup>(place, dynamic_cast<StoredTexts&>(*texts).store());
}

std::unique_ptr<Group> make_nccl_group(const NcclModule& module, const Place& place,
                                       const std::shared_ptr<SharedTexts>& texts) {
    const auto& store = dynamic_cast<StoredTexts&>(*texts).store();
    return std::unique_ptr<Group>(module.make(&store, place.rank, place.world));
}

}  // namespace atelier::parallel
