"""The endpoints of the API, one file for each thing that they are about; a line here for each file."""
