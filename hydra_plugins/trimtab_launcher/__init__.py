"""The launcher of Trimtab; `hydra_plugins` itself is Hydra's namespace and has no such file."""
