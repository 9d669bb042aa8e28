// The options of a group, as given to run_group().
#pragma once

#include <string>

namespace portage::group {

struct Options {
  std::string scope;
  int workers = 2;                 ///< members that are worked on at a time
  bool background = true;          ///< else somebody calls work_group()
  std::string run_options = "{}";  ///< of each run; checked
};

/// Parses and checks the options. Raises PZ003 naming the option and the nearest known names.
Options parse_options(const std::string& json);

}  // namespace portage::group
