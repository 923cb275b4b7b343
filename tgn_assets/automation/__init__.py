"""When weeks run: the job, the Monday schedule and the sensor that requests missed or changed weeks."""
