"""The science of the search, pure: values in, values out. No file, clock, network, environment or log is touched here."""
