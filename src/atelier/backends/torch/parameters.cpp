#include "atelier/backends/torch/parameters.h"

#include <cmath>
#include <cstring>
#include <set>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/random_streams.h"

namespace atelier::backends {

namespace {

at::ScalarType torch_type(core::DType type) {
    switch (type) {
        case core::DType::F64:
            return at::kDouble;
        case core::DType::F32:
            return at::kFloat;
        case core::DType::F16:
            return at::kHalf;
        case core::DType::BF16:
            return at::kBFloat16;
        case core::DType::I64:
            return at::kLong;
        case core::DType::I32:
            return at::kInt;
        case core::DType::I16:
            return at::kShort;
        case core::DType::I8:
            return at::kChar;
        case core::DType::U8:
            return at::kByte;
        case core::DType::BOOL:
            return at::kBool;
    }
    core::fail("unknown element type");
}

core::DType file_type(const Tensor& tensor) {
    switch (tensor.scalar_type()) {
        case at::kDouble:
            return core::DType::F64;
        case at::kFloat:
            return core::DType::F32;
        case at::kHalf:
            return core::DType::F16;
        case at::kBFloat16:
            return core::DType::BF16;
        case at::kLong:
            return core::DType::I64;
        case at::kInt:
            return core::DType::I32;
        case at::kChar:
            return core::DType::I8;
        case at::kByte:
            return core::DType::U8;
        case at::kBool:
            return core::DType::BOOL;
        default:
            core::fail("tensors of type {} cannot be written", at::toString(tensor.scalar_type()));
    }
}

std::span<const std::byte> bytes_of(const Tensor& contiguous) {
    return {static_cast<const std::byte*>(contiguous.const_data_ptr()), contiguous.nbytes()};
}

Tensor draw(const graph::ParameterSpec& spec, std::uint64_t seed) {
    Tensor tensor = at::full(spec.shape, spec.base, at::kFloat);
    if (spec.init.gain == 0) return tensor;
    const bool xavier = spec.init.kind == graph::Init::Kind::xavier;
    if (xavier && spec.shape.size() == 1) return tensor;
    core::RandomStream stream(seed, "init/" + spec.name);
    const std::int64_t fans = xavier ? spec.fan_in + tensor.numel() / tensor.size(1) : spec.fan_in;
    const double bound = spec.init.gain * (xavier ? std::sqrt(6.0 / static_cast<double>(fans))
                                                  : 1 / std::sqrt(static_cast<double>(fans)));
    float* values = tensor.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
        const double unit = spec.init.kind == graph::Init::Kind::normal ? stream.normal()
                                                                        : 2 * stream.uniform() - 1;
        values[i] += static_cast<float>(bound * unit);
    }
    return tensor;
}

}  // namespace

const Tensor& Parameters::at(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end() && base_) return base_->at(name);
    if (found == tensors_.end()) core::fail("there is no tensor \"{}\" among the parameters", name);
    return found->second;
}

std::vector<Tensor> Parameters::list() const {
    std::vector<Tensor> all;
    all.reserve(tensors_.size());
    for (const auto& [name, tensor] : tensors_) all.push_back(tensor);
    return all;
}

std::int64_t Parameters::count() const {
    std::int64_t total = 0;
    for (const auto& [name, tensor] : tensors_) total += tensor.numel();
    return total;
}

Parameters Parameters::clone() const {
    Parameters copy;
    copy.set_base(base_);
    for (const auto& [name, tensor] : tensors_) copy.set(name, tensor.detach().clone());
    return copy;
}

void Parameters::copy_from(const Parameters& other) {
    at::NoGradGuard no_gradients;
    for (auto& [name, tensor] : tensors_) tensor.copy_(other.at(name));
}

Parameters Parameters::to(at::Device device, at::ScalarType type) const {
    Parameters moved;
    moved.set_base(base_);
    for (const auto& [name, tensor] : tensors_) {
        moved.set(name, tensor.is_floating_point() ? tensor.to(device, type) : tensor.to(device));
    }
    return moved;
}

Parameters Parameters::cast_weights(at::ScalarType type) const {
    Parameters changed;
    for (const auto& [name, tensor] : tensors_)
        changed.set(name, tensor.dim() >= 2 ? tensor.to(type) : tensor);
    for (const auto& [name, tensor] : changed.tensors_) {
        if (!tensor.is_cpu() && tensor.scalar_type() == at::kFloat)
            changed.narrow_[name] = tensor.to(type);
    }
    return changed;
}

void Parameters::keep_narrow(at::ScalarType type) {
    narrow_.clear();
    for (const auto& [name, tensor] : tensors_) {
        if (tensor.is_cpu() || tensor.scalar_type() != at::kFloat || is_buffer(name)) continue;
        narrow_[name] = tensor.detach().to(type).set_requires_grad(tensor.requires_grad());
    }
}

void Parameters::refresh_narrow() const {
    if (narrow_.empty()) return;
    at::NoGradGuard no_gradients;
    std::vector<Tensor> to, from;
    for (const auto& [name, copy] : narrow_) {
        to.push_back(copy);
        from.push_back(tensors_.at(name));
    }
    at::_foreach_copy_(to, from);
}

const Tensor& Parameters::narrow(const std::string& name) const {
    if (const auto found = narrow_.find(name); found != narrow_.end()) return found->second;
    return base_ && !tensors_.contains(name) ? base_->narrow(name) : at(name);
}

std::vector<Tensor> Parameters::leaves() const {
    std::vector<Tensor> all = list();
    for (const auto& [name, copy] : narrow_) all.push_back(copy);
    return all;
}

std::vector<Tensor> Parameters::joined_gradients(std::vector<Tensor> of_leaves) const {
    at::NoGradGuard no_gradients;
    std::vector<Tensor> wide, of_copies;
    std::size_t index = 0, next = tensors_.size();
    for (const auto& [name, tensor] : tensors_) {
        const std::size_t i = index++;
        if (!narrow_.contains(name)) continue;
        Tensor of_copy = std::move(of_leaves[next++]);
        if (!of_copy.defined()) continue;
        if (of_leaves[i].defined()) {
            of_leaves[i] = of_leaves[i] + of_copy;
            continue;
        }
        of_leaves[i] = at::empty_like(tensor);
        wide.push_back(of_leaves[i]);
        of_copies.push_back(std::move(of_copy));
    }
    if (!wide.empty()) at::_foreach_copy_(wide, of_copies);
    of_leaves.resize(tensors_.size());
    return of_leaves;
}

void Parameters::require_gradients(bool required) const {
    for (const auto& [name, tensor] : tensors_) tensor.set_requires_grad(required);
}

bool Parameters::all_finite() const {
    at::NoGradGuard no_gradients;
    for (const auto& [name, tensor] : tensors_) {
        if (tensor.is_floating_point() && !tensor.sum().isfinite().item<bool>()) return false;
    }
    return true;
}

Parameters Parameters::subset(const std::string& prefix) const {
    Parameters part;
    for (auto it = tensors_.lower_bound(prefix);
         it != tensors_.end() && it->first.starts_with(prefix); ++it) {
        part.set(it->first.substr(prefix.size()), it->second);
    }
    return part;
}

void Parameters::merge(const Parameters& other, const std::string& prefix) {
    for (const auto& [name, tensor] : other.tensors()) set(prefix + name, tensor);
}

Parameters initialise(std::span<const graph::ParameterSpec> specs, std::uint64_t seed) {
    Parameters initialised;
    for (const graph::ParameterSpec& spec : specs) initialised.set(spec.name, draw(spec, seed));
    return initialised;
}

bool is_buffer(const std::string& name) { return name.ends_with(".freqs"); }

void check_against(const Parameters& parameters, std::span<const graph::ParameterSpec> specs,
                   const std::string& where) {
    std::set<std::string> known;
    for (const graph::ParameterSpec& spec : specs) {
        known.insert(spec.name);
        if (!parameters.contains(spec.name)) {
            core::fail("{}: tensor \"{}\" is missing; config.json describes another network", where,
                       spec.name);
        }
        const auto shape = parameters.at(spec.name).sizes().vec();
        if (shape != spec.shape) {
            core::fail(
                "{}: tensor \"{}\" is {}, config.json implies {}; were its sizes changed after "
                "training?",
                where, spec.name, core::to_string(shape), core::to_string(spec.shape));
        }
    }
    for (const auto& [name, tensor] : parameters.tensors()) {
        if (!known.contains(name))
            core::fail("{}: tensor \"{}\" is not part of the network of config.json", where, name);
    }
}

namespace {

Tensor copied(const core::TensorEntry& entry, std::span<const std::byte> bytes, bool keep_type) {
    Tensor tensor = at::empty(entry.shape, torch_type(entry.dtype));
    if (!bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
    return tensor.is_floating_point() && !keep_type ? tensor.to(at::kFloat) : tensor;
}

bool is_aligned(const core::TensorEntry& entry, std::span<const std::byte> bytes) {
    return !bytes.empty() &&
           reinterpret_cast<std::uintptr_t>(bytes.data()) % core::size_of(entry.dtype) == 0;
}

bool can_be_mapped(const core::TensorEntry& entry, std::span<const std::byte> bytes) {
    return (entry.dtype == core::DType::I8 || entry.dtype == core::DType::F32) &&
           is_aligned(entry, bytes);
}

}  // namespace

Tensor read_tensor(const core::SafetensorsFile& file, const std::string& name, bool keep_type) {
    return copied(file.entry(name), file.bytes(name), keep_type);
}

Tensor read_row(const core::SafetensorsFile& file, const std::string& name, std::int64_t row) {
    core::TensorEntry entry = file.entry(name);
    if (entry.shape.empty() || row < 0 || row >= entry.shape[0])
        core::fail("{}: \"{}\" has no row {}", file.path().string(), name, row);
    const auto bytes = file.bytes(name);
    const std::size_t each = bytes.size() / static_cast<std::size_t>(entry.shape[0]);
    entry.shape.erase(entry.shape.begin());
    return copied(entry, bytes.subspan(static_cast<std::size_t>(row) * each, each), false);
}

Parameters read_parameters(const core::SafetensorsFile& file, bool keep_types) {
    Parameters read;
    for (const auto& [name, entry] : file.entries())
        read.set(name, read_tensor(file, name, keep_types));
    return read;
}

Tensor map_tensor(const std::shared_ptr<const core::SafetensorsFile>& file,
                  const std::string& name) {
    const core::TensorEntry& entry = file->entry(name);
    const auto bytes = file->bytes(name);
    if (!is_aligned(entry, bytes)) return copied(entry, bytes, true);
    return at::from_blob(
        const_cast<std::byte*>(bytes.data()), entry.shape, [file](void*) {},
        torch_type(entry.dtype));
}

Parameters map_parameters(const std::shared_ptr<const core::SafetensorsFile>& file) {
    Parameters mapped;
    for (const auto& [name, entry] : file->entries()) {
        const auto bytes = file->bytes(name);
        mapped.set(name, can_be_mapped(entry, bytes) ? map_tensor(file, name)
                                                     : copied(entry, bytes, false));
    }
    return mapped;
}

Parameters read_parameters(const std::filesystem::path& path, bool keep_types) {
    return read_parameters(core::SafetensorsFile(path), keep_types);
}

void write_parameters(const std::filesystem::path& path, const Parameters& parameters,
                      const std::map<std::string, std::string>& metadata) {
    std::vector<Tensor> contiguous;  // keeps the contiguous CPU copies alive until they are written
    std::vector<core::TensorBytes> tensors;
    for (const auto& [name, tensor] : parameters.tensors()) {
        contiguous.push_back(tensor.detach().to(at::kCPU).contiguous());
        tensors.push_back({name, file_type(contiguous.back()), contiguous.back().sizes().vec(),
                           bytes_of(contiguous.back())});
    }
    core::write_safetensors(path, std::move(tensors), metadata);
}

std::string hash_of(const Parameters& parameters) {
    std::string description;
    for (const auto& [name, tensor] : parameters.tensors()) {
        const Tensor here = tensor.detach().to(at::kCPU).contiguous();
        description += name + core::to_string(here.sizes().vec()) + core::name_of(file_type(here)) +
                       core::sha256(bytes_of(here)) + "\n";
    }
    return core::sha256(description);
}

}  // namespace atelier::backends
