// Discretion: while somebody has the run of a pipeline with sensitive paths in hand, nothing that PostgreSQL
// or users' code says may tell a value. Errors are masked where they come into being (error.hpp), so that no
// way out can forget it; this file says what may be told of one. Knows nothing of pipelines: others say when.
#pragma once

#include "bridge/error.hpp"

namespace portage::bridge {

/// While one that is on lives, this backend is discreet. A copy is on as well.
class Discretion {
 public:
  explicit Discretion(bool on = false);
  Discretion(const Discretion& other) : Discretion(other.on_) {}
  Discretion& operator=(const Discretion& other);
  ~Discretion();

 private:
  bool on_;
};

bool discreet();
/// True if it was at some time since the last call of forget_discretion(): for what is only caught when its
/// frames are gone.
bool was_discreet();
/// Begins anew, and gives what was_discreet() was.
bool forget_discretion(bool before = false);

/// While one lives, messages are ours: they are passed on.
class Speaking {
 public:
  Speaking();
  ~Speaking();
  Speaking(const Speaking&) = delete;
  Speaking& operator=(const Speaking&) = delete;
};

/// A value in a text about a run: *** where it must not be told.
std::string quotable(std::string_view value);

/// What may be told of an error that PostgreSQL or users' code has raised: its SQLSTATE; what it names, if it
/// is PostgreSQL's own word; and the message, if that can only name objects.
ErrorReport withheld(const ErrorReport&);

/// To be called once: from now on messages below ERROR reach neither client nor log while this backend is
/// discreet, unless they are ours, or were written for the log by a module that does so.
void watch_messages();

}  // namespace portage::bridge
