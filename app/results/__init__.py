"""Pages of results, written from the files of an experiment's runs."""
