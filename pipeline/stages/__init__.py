"""The stages that a frame goes through, one file each, in the order of the flow."""
