"""The call log as bytes: files, pages, columns, and what is kept of them between runs."""
