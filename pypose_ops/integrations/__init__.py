"""pypose_ops inside of other projects; each module needs the project that it is named after."""
