// The way in: PORTAGE_FUNCTION(name) { ... } defines the SQL-callable C symbol `name` and its C++ body. Every
// C++ exception that leaves the body becomes one ereport, raised after all C++ frames are gone.
#pragma once

#include "bridge/error.hpp"
#include "bridge/guard.hpp"

namespace portage::bridge {

using Body = Datum (*)(FunctionCallInfo);

/// Runs the body and turns what it throws into an ereport. Has no destructors of its own to skip.
Datum enter(FunctionCallInfo fcinfo, Body body);

/// For procedures that commit: 2D000 unless this one was called at the top, outside any transaction block.
/// `instead`: what else could be used; `when` it commits.
void require_nonatomic(FunctionCallInfo fcinfo, const std::string& name, const std::string& instead = "",
                       const std::string& when = "after every batch");

/// Tells the user something at NOTICE level (or `level`), from C++ code.
void notice(const std::string& message, const std::string& detail = "", int level = NOTICE);

}  // namespace portage::bridge

#define PORTAGE_FUNCTION(name)                                                                       \
  static Datum name##_body(FunctionCallInfo fcinfo);                                                 \
  extern "C" {                                                                                       \
  PG_FUNCTION_INFO_V1(name);                                                                         \
  PGDLLEXPORT Datum name(PG_FUNCTION_ARGS) { return ::portage::bridge::enter(fcinfo, name##_body); } \
  }                                                                                                  \
  static Datum name##_body([[maybe_unused]] FunctionCallInfo fcinfo)
