"""The commands of `rankserve models`, one file each."""
