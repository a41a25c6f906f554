"""What `rankserve simulate` does: workloads as columns, scores, runs in virtual time, their figures."""
