"""What a command does with the parts it composed; chosen by the ``task`` group, a file for each."""
