#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "atelier/inference/decoder.h"
#include "atelier/inference/sampler.h"
#include "atelier/models/low_rank_file.h"

namespace atelier::inference {

struct PipelineOptions {
    Engine engine{};
    /// sampling_of's, or of diffusers directories diffusers_sampling's. Empty: default_sampling's,
    /// for diffusers directories diffusers_sampling's.
    std::string sampler{};
    std::optional<std::int64_t> steps{};
    /// Of models that read prompts, except students, which have it built in, and of diffusers
    /// directories; without: DiffusersGuidance::usual_scale for those, else that with which the
    /// model's students were distilled.
    std::optional<double> guidance{};
    std::string negative{};              // diffusers directories only, as are height and width,
    std::int64_t height = 0, width = 0;  // in pixels; 0: the model's own
    std::vector<models::LowRankFile> low_rank{};  // of diffusers directories
};

/// Draws samples from whatever a directory holds: an ensemble of students that own classes or
/// prompts, a single model, or a diffusers directory. Conditions are encoded (Conditioner) and
/// assigned (Router), each student draws its own (Sampler), and samples are decoded (Decoder).
/// Students are loaded on first use. Each sample depends only on its seed, index, condition and the
/// weights. Not thread-safe, except where noted.
class Pipeline {
public:
    /// Throws core::UsageError when the options do not apply to the model, core::Error when there
    /// is no model.
    static std::unique_ptr<Pipeline> load(const std::filesystem::path& path,
                                          const PipelineOptions& options = {});

    /// Called with the number of samples drawn so far.
    using OnProgress = std::function<void(std::int64_t done)>;

    /// All samples as a user gets them, in the order of the requests: images uint8 [N,H,W,C] or
    /// points float32 [N,D]. Drawn in batches, deterministically (bit for bit) on GPUs as well.
    /// Throws core::UsageError on conditions that the model does not know, core::Interrupted when a
    /// stop is requested meanwhile. `on_evaluation`: see Sampler::draw.
    Tensor sample(std::span<const SampleRequest> requests, const OnProgress& on_progress = {},
                  const Sampler::OnEvaluation& on_evaluation = {});
    /// The same in model space, [N, shape...], not decoded.
    Tensor draw_all(std::span<const SampleRequest> requests, const OnProgress& on_progress = {});
    /// The same in the model space of decoded_spec: latents are decoded, to 8 bits.
    Tensor draw_decoded(std::span<const SampleRequest> requests);
    /// The requests (by their positions) that `sample` and `draw_all` send through a network
    /// together: a batch that is drawn alone has the same bytes as it has among all others, on
    /// every engine and device. Each is of one student.
    std::vector<std::vector<std::int64_t>> batches(std::span<const SampleRequest> requests) const;
    /// All of them together, without regard to their number.
    Tensor draw(std::span<const SampleRequest> requests,
                const Sampler::OnEvaluation& on_evaluation = {});
    Tensor decode(const Tensor& samples) { return decoder_->decode(samples); }

    bool reads_prompts() const { return conditioner_->reads_prompts(); }
    /// Samples in model space.
    const data::SampleSpec& spec() const { return spec_; }
    /// Samples as decoded: images or points.
    const data::SampleSpec& decoded_spec() const { return decoder_->spec(); }
    /// Of classes; a single one for models without classes.
    const conditions::Prior& prior() const { return prior_; }
    /// The owner of each class: a single model owns them all. For models that read prompts only the
    /// number of students, the method, and partition_hash.
    const conditions::Partition& partition() const { return partition_; }
    /// The hash of the partition of classes or of prompts; empty if there is one student.
    const std::string& partition_hash() const { return partition_hash_; }
    std::int64_t students() const { return partition_.students; }

    /// Encodes conditions; any thread.
    Conditioning encode(std::span<const Condition> conditions) const {
        return conditioner_->encode(conditions);
    }
    /// The students that own the conditions; any thread.
    std::vector<Router::Decision> route(std::span<const Condition> conditions) const;
    std::int64_t student_of(const Condition& condition) const {
        return route({&condition, 1}).front().student;
    }

    const Sampling& sampling() const { return sampling_; }
    const Engine& engine() const { return engine_; }
    /// Of models that read prompts, 1 for students, which have it built in, and of diffusers
    /// directories.
    const std::optional<double>& guidance() const { return guidance_; }
    /// The negative prompt of a diffusers directory.
    const std::optional<std::string>& negative() const { return negative_; }
    bool is_diffusers() const { return negative_.has_value(); }
    std::string hash_of_student(std::int64_t student);
    /// The hash of each student's weights.
    std::vector<std::string> hashes();
    /// One hash of the weights of all students.
    std::string hash();
    /// Number of parameters of a student's network.
    std::int64_t parameters_of_student(std::int64_t student);

    /// Loads a student now rather than on first use.
    void preload(std::int64_t k) { student(k); }

    /// For callers that keep students themselves, such as a server; any thread.
    const Conditioner& conditioner() const { return *conditioner_; }
    const Router& router() const { return router_; }
    std::shared_ptr<Decoder> decoder() const { return decoder_; }
    /// A new copy of a student in memory; it may outlive the pipeline. `sampling`: instead of the
    /// pipeline's.
    std::unique_ptr<Sampler> open_student(std::int64_t student,
                                          const std::optional<Sampling>& sampling = {}) const {
        return models_->open(student, sampling.value_or(sampling_));
    }
    /// The size of a student's network, without loading it.
    struct NetworkSize {
        std::int64_t parameters = 0;
        double flops = 0;  // of one evaluation of one sample
    };
    NetworkSize size_of_student(std::int64_t student) const { return models_->size(student); }
    /// Opens a student's files, so that it stays the same when they are replaced later.
    void hold(std::int64_t student) const { models_->hold(student); }

    /// Opens the networks of a kind of directory; thread-safe.
    class Models {
    public:
        virtual ~Models() = default;
        virtual std::unique_ptr<Sampler> open(std::int64_t student,
                                              const Sampling& sampling) const = 0;
        virtual NetworkSize size(std::int64_t student) const = 0;
        virtual void hold(std::int64_t student) const {}
    };

private:
    Pipeline() = default;
    void load_models(const std::filesystem::path& path, const PipelineOptions& options);
    void load_diffusers(const std::filesystem::path& path, const PipelineOptions& options);
    const Sampler& student(std::int64_t k);
    std::size_t decoded_together() const;
    Tensor decode_all(const Tensor& samples, std::span<const SampleRequest> requests);
    Tensor in_batches(std::span<const SampleRequest> requests, bool decoded,
                      const OnProgress& on_progress, const Sampler::OnEvaluation& on_evaluation);

    std::unique_ptr<const Conditioner> conditioner_;
    Router router_;
    std::unique_ptr<const Models> models_;
    std::shared_ptr<Decoder> decoder_;
    data::SampleSpec spec_;
    conditions::Prior prior_;
    conditions::Partition partition_;
    std::string partition_hash_;
    Sampling sampling_;
    Engine engine_;
    std::optional<double> guidance_;
    std::optional<std::string> negative_;
    std::vector<std::unique_ptr<Sampler>> loaded_;
};

/// Whether the model, ensemble or diffusers directory at `path` is conditioned on prompts.
bool reads_prompts(const std::filesystem::path& path);

/// The directory that has the prompt encoder and the autoencoder of a model or an ensemble: its
/// own, or that of the ensemble whose student it is.
std::filesystem::path parts_directory(const std::filesystem::path& path);

/// One hash of the weights of all students from their hashes, of which there must be at least one.
std::string hash_of(std::span<const std::string> hashes);

}  // namespace atelier::inference
