// How values of one type are hashed: shared by hash.cpp, which does it, and hash_types.cpp, which finds out;
// nobody else includes this.
#pragma once

#include "pipeline/hash.hpp"

namespace portage {

enum class HashKind : uint8_t {
  byte,
  int2,
  int4,
  int8,
  uuid,
  text,
  bytea,
  name,
  jsonb,
  label,
  send,
  output,
  array,
  record,
  range,
  multirange
};

/// How to hash the values of one type. Lives in the hasher's memory context.
struct TypeHasher {
  HashKind kind;
  Oid type;  ///< never a domain
  bool by_value;
  int16 length;
  char align;
  FmgrInfo function;    ///< send or output
  TypeHasher* element;  ///< of arrays and ranges
  MemoryContext context;
  uint64 record_identity;  ///< which shape `fields` fits; 0: none yet
  TupleDesc record_shape;
  RowHasher fields;
};

/// What some type of a row needs while it is hashed.
struct HashNeeds {
  bool encoding, output;
};

/// Raw code. The hasher, and what it points to, live in `context`.
TypeHasher* type_hasher_raw(Oid type, MemoryContext context, HashNeeds*);

}  // namespace portage
