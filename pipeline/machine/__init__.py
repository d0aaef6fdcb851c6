"""What the pipeline asks of the machine: cores, devices, memory, versions, a folder of memos."""
