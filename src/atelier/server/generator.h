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

/// All that the server knows of the models that it serves. Whoever starts it puts something behind these two classes.
namespace atelier::server {

class Metrics;

/// What a model that reads prompts makes of one, once: who draws for it, and what that student is told.
struct Reading {
    std::int64_t student = 0;
    double margin = 0;                 // between the student's score and the runner-up's: near 0 at a border
    std::shared_ptr<const void> told;  // of its generator alone
    std::string unread;  // the end of the prompt that is beyond the tokens which the model reads
};

/// One picture to be drawn: its noise follows from seed and number.
struct Draw {
    std::uint64_t seed = 0;
    std::int64_t number = 0;
    std::int64_t class_id = 0;  // or, of models that read prompts:
    std::string prompt;
    std::shared_ptr<const void> told;  // the prompt's Reading's
};

/// A drawn picture and what it says of its making, for the file's text.
struct Picture {
    core::Image image;
    std::map<std::string, std::string> text;
};

/// A loaded student. As many threads at a time as its facts say.
class Student {
public:
    virtual ~Student() = default;

    /// A picture for each draw, in order. Every class must be the student's own. Nobody waits for them after `until`. A Refusal is told to the clients
    /// as it is; of any other error they hear only that there was one.
    virtual std::vector<Picture> generate(std::span<const Draw> draws, Clock::time_point until) = 0;

    /// Does ahead what it would do when first asked for larger batches. Beside `generate`, by any thread.
    virtual void prepare() {}
};

struct StudentFacts {
    std::int64_t parameters = 0;
    std::int64_t bytes = 0;    // of memory once loaded, estimated
    std::size_t at_once = 1;   // batches that it draws at the same time
    bool present = true;       // whether it can be asked here, now
};

/// What is known of an ensemble while none of its students is loaded. A single model is an ensemble of one.
struct Description {
    std::vector<std::string> class_names;  // empty, or one a class
    conditions::Partition partition;       // of models that read prompts only how many students there are
    bool reads_prompts = false;
    std::string prompts_hash;              // of the partition of prompts
    conditions::Prior prior;
    std::vector<std::int64_t> here;        // the students that are asked here, increasing; requests for others are misdirected
    bool routes = false;                   // other servers draw
    int width = 0, height = 0;
    std::int64_t evaluations = 1;   // of the network, a picture
    std::string engine, precision;

    std::string partition_hash() const { return reads_prompts ? prompts_hash : partition.hash(); }
};

/// An ensemble that can be served.
class Generator {
public:
    virtual ~Generator() = default;

    virtual const Description& description() const = 0;
    /// Of any student of the partition, as it stands now. Any thread.
    virtual StudentFacts facts(std::int64_t k) const = 0;
    /// Puts what it alone can tell into `metrics`, which are about to be read; `model` is what it is served as. Any thread.
    virtual void measure(Metrics& metrics, const std::string& model) const {}

    /// What it makes of each prompt, where the description says that it reads prompts; takes as long as a text tower does. Any thread. Throws core::Error on what is no
    /// UTF-8.
    virtual std::vector<Reading> read(std::span<const std::string> prompts) const { return std::vector<Reading>(prompts.size()); }

    /// Reads student `k`, one of those here, and makes it ready to draw one picture; takes long. Any thread. The student may outlive the generator. Throws core::Error when its
    /// files are broken.
    virtual std::unique_ptr<Student> load(std::int64_t k) const = 0;
};

}  // namespace atelier::server
