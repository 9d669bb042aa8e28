-- The tables of all measurements. What a bad item does wrong, these constraints refuse, too: peers that know no rules
-- end with the same rows.
CREATE SCHEMA app;

CREATE TABLE app.courses (id integer PRIMARY KEY);
INSERT INTO app.courses SELECT generate_series(1, 1000);

CREATE TABLE app.progress (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id          text NOT NULL,
  word_id          text NOT NULL,
  review_count     integer NOT NULL CHECK (review_count >= 0),
  correct_count    integer NOT NULL,
  last_reviewed_at timestamptz,
  due_on           date,
  srs_interval     integer,
  ease_factor      double precision NOT NULL DEFAULT 2.5,
  known            boolean,
  course_id        integer,
  UNIQUE (user_id, word_id),
  CHECK (correct_count BETWEEN 0 AND review_count)
);
