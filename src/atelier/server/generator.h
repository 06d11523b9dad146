#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/conditions/partition.h"
#include "atelier/conditions/prior.h"
#include "atelier/core/image_file.h"
#include "atelier/server/http.h"

/// The interface between the server and the models that it serves; the caller implements Generator
/// and Student.
namespace atelier::server {

class Metrics;

/// The conditioning of one prompt in the form that its generator's students take. Only the
/// generator that made it knows the derived type.
struct Conditioning {
    virtual ~Conditioning() = default;
};

/// A prompt after encoding and routing: the student that draws it, and its conditioning.
struct EncodedPrompt {
    std::int64_t student = 0;
    double margin = 0;  // the student's score minus the runner-up's; near 0 at a border
    std::shared_ptr<const Conditioning> conditioning;  // null in a router
    std::string truncated;  // the end of the prompt, beyond the token limit; usually empty
};

/// One image to draw; seed and number determine its noise.
struct Draw {
    std::uint64_t seed = 0;
    std::int64_t number = 0;
    std::int64_t class_id = 0;  // or, for models that take prompts:
    std::string prompt;
    std::shared_ptr<const Conditioning> conditioning;  // of `prompt`
};

/// Pixels and generation metadata (PNG text keywords and values).
struct GeneratedImage {
    core::Image image;
    std::map<std::string, std::string> text;
};

/// A loaded student. StudentFacts::max_concurrent_batches threads may call `generate` concurrently.
class Student {
public:
    virtual ~Student() = default;

    /// Returns one image per draw, in order. Every class must belong to the student. The result is
    /// discarded after `deadline`. An HttpError is passed to the clients as it is; any other
    /// exception becomes a generic error 500.
    virtual std::vector<GeneratedImage> generate(std::span<const Draw> draws,
                                                 Clock::time_point deadline) = 0;

    /// Does ahead of time what the first larger batches would otherwise wait for (compilation).
    /// Any thread, concurrently with `generate`.
    virtual void prepare() {}
};

struct StudentFacts {
    std::int64_t parameters = 0;
    std::int64_t bytes = 0;                  // estimated memory once loaded
    std::size_t max_concurrent_batches = 1;  // batches it can run at the same time
    bool available = true;                   // whether it can be used here now
};

/// Metadata of an ensemble, known before any student is loaded. A single model is an ensemble of
/// one.
struct Description {
    std::vector<std::string> class_names;  // empty, or one per class
    conditions::Partition partition;  // for models that take prompts, only the number of students
    bool reads_prompts = false;
    std::string prompts_hash;  // of the prompt partition
    conditions::Prior prior;
    std::vector<std::int64_t> served_students;  // increasing; requests for others are answered 421
    bool routes = false;                        // other servers draw
    int width = 0, height = 0;
    std::int64_t evaluations = 1;  // network evaluations per image
    std::string engine, precision;

    std::string partition_hash() const { return reads_prompts ? prompts_hash : partition.hash(); }
};

/// An ensemble that can be served.
class Generator {
public:
    virtual ~Generator() = default;

    virtual const Description& description() const = 0;
    /// The current state of student `k` of the partition. Any thread.
    virtual StudentFacts facts(std::int64_t k) const = 0;
    /// Sets the generator's own metrics, just before `metrics` is read; `model` is the id it is
    /// served under. Any thread.
    virtual void measure(Metrics& metrics, const std::string& model) const {}

    /// Encodes and routes each prompt, if the description says that it reads prompts. Slow (runs
    /// the text encoder). Any thread. Throws core::Error on invalid UTF-8.
    virtual std::vector<EncodedPrompt> encode(std::span<const std::string> prompts) const {
        return std::vector<EncodedPrompt>(prompts.size());
    }

    /// Loads student `k`, one of the served students, and prepares it for a batch of 1. Slow. Any
    /// thread. The student may outlive the generator. Throws core::Error if its files are broken.
    virtual std::unique_ptr<Student> load(std::int64_t k) const = 0;
};

}  // namespace atelier::server
