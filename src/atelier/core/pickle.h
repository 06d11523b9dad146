#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace atelier::core {

class PickleValue;

/// A Python pickle (protocols 2 to 5) read as data. Nothing in it is executed or imported: a
/// function call becomes a value of kind `call` that holds the function's name and arguments; a
/// persistent id is a call of "persistent_id". Texts are views of the bytes that were read, which
/// must outlive the Pickle.
class Pickle {
public:
    /// Whether a pickle may name the global `module.name`.
    using Allowed = bool (*)(const std::string& global);

    /// Reads the pickle at the beginning of `bytes`. Throws Error that begins with `where` on a
    /// global that is not allowed (naming it), on broken or unknown instructions, and on more than
    /// a million values.
    Pickle(std::span<const std::byte> bytes, std::string where, Allowed allowed);

    PickleValue root() const;
    /// All calls of `global`, anywhere in the pickle.
    std::vector<PickleValue> calls(std::string_view global) const;
    /// Length of the pickle in bytes.
    std::size_t size() const { return size_; }
    const std::string& where() const { return where_; }

private:
    friend class PickleValue;
    friend class PickleReader;

    enum class Kind { none, boolean, integer, real, text, bytes, list, dict, global, call };
    struct Value {
        Kind kind = Kind::none;
        std::int64_t integer = 0;
        double real = 0;
        std::string_view text;  // of a text, bytes or global
        // Of a list, tuple or set; or alternating keys and values of a dict, or of a call whose
        // result is filled like one.
        std::vector<std::uint32_t> items;
        std::uint32_t callee = 0, arguments = 0,
                      state = 0;  // of a call; the state is set on its result
    };

    std::string where_;
    std::deque<Value> values_;  // the first is None
    std::deque<std::string> globals_;
    std::uint32_t root_ = 0;
    std::size_t size_ = 0;
};

/// One value of a pickle, which must outlive it. Getters throw Error when the value is of another
/// kind.
class PickleValue {
public:
    bool is_none() const { return value().kind == Pickle::Kind::none; }
    bool is_number() const;  // boolean, integer or real
    bool is_integer() const { return value().kind == Pickle::Kind::integer; }
    bool is_text() const { return value().kind == Pickle::Kind::text; }
    bool is_list() const { return value().kind == Pickle::Kind::list; }  // or a tuple or set
    bool is_dict() const { return value().kind == Pickle::Kind::dict; }
    bool is_global() const { return value().kind == Pickle::Kind::global; }
    bool is_call() const { return value().kind == Pickle::Kind::call; }
    bool is_call(std::string_view global) const;

    std::int64_t integer() const;
    double real() const;
    std::string_view text() const;  // of a text or global
    std::span<const std::byte> bytes() const;
    std::vector<PickleValue> items() const;  // of a list
    std::vector<std::pair<PickleValue, PickleValue>> entries()
        const;  // of a dict, or of a call whose result is filled like one

    PickleValue callee() const;
    std::vector<PickleValue> arguments() const;
    PickleValue state() const;

    /// The value at a text key of a dict; None where there is none.
    PickleValue operator[](std::string_view key) const;

private:
    friend class Pickle;

    PickleValue(const Pickle& pickle, std::uint32_t id) : pickle_(&pickle), id_(id) {}

    const Pickle::Value& value() const { return pickle_->values_[id_]; }
    const Pickle::Value& expect(Pickle::Kind kind, const char* what) const;
    PickleValue at(std::uint32_t id) const { return {*pickle_, id}; }

    const Pickle* pickle_;
    std::uint32_t id_;
};

}  // namespace atelier::core
