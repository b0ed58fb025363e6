"""The parts of ``offsim experiment``: what its YAML asks for, shared stages, processes, and how far each run is."""
