"""Work with several processes: reductions, gathering, divided parameters."""
