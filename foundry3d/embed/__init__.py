"""Features of point clouds: arrays (`clouds`), files (`files`, `reading`) and scenes (`scenes`)."""
