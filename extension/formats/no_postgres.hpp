// A trip-wire: every source file below formats/, and the pure ones elsewhere, include this header last. It
// proves that no PostgreSQL header leaked into the pure C++ layer, where longjmp and its macros must not be
// known.
#pragma once

#if defined(POSTGRES_H) || defined(PG_VERSION)
#error "pure C++ must not see a PostgreSQL header"
#endif
