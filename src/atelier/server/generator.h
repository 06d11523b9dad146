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

/// All that the server knows of the models that it serves. Whoever starts it puts something behind these two classes.
namespace atelier::server {

/// One picture to be drawn: its noise follows from seed and number.
struct Draw {
    std::uint64_t seed = 0;
    std::int64_t number = 0;
    std::int64_t class_id = 0;
};

/// A drawn picture and what it says of its making, for the file's text.
struct Picture {
    core::Image image;
    std::map<std::string, std::string> text;
};

/// A loaded student. One thread at a time.
class Student {
public:
    virtual ~Student() = default;

    /// A picture for each draw, in order. Every class must be the student's own.
    virtual std::vector<Picture> generate(std::span<const Draw> draws) = 0;
};

/// What is known of an ensemble while none of its students is loaded. A single model is an ensemble of one.
struct Description {
    struct StudentFacts {
        std::int64_t parameters = 0;
        std::int64_t bytes = 0;  // of memory once loaded, estimated
    };
    std::vector<std::string> class_names;  // empty, or one a class
    conditions::Partition partition;
    conditions::Prior prior;
    std::vector<StudentFacts> students;
    int width = 0, height = 0;
    std::int64_t evaluations = 1;   // of the network, a picture
    std::string engine, precision;
};

/// An ensemble that can be served.
class Generator {
public:
    virtual ~Generator() = default;

    virtual const Description& description() const = 0;

    /// Reads student `k` and makes it ready to answer; takes long. Any thread. The student may outlive the generator. Throws core::Error when its
    /// files are broken.
    virtual std::unique_ptr<Student> load(std::int64_t k) const = 0;
};

}  // namespace atelier::server
