"""Tables: for people (text, LaTeX) and for programs (CSV, Parquet, pandas)."""
