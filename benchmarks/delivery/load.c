/* The load of the delivery benchmarks: publishes events to Redis and counts what viewers receive.
 *
 *   load HOST PORT REDIS_PORT PLAN
 *
 * It writes READY when all viewers of the plan (`load.h`) are connected, waits for a line on its standard input,
 * writes START and STOP around what is counted, and then one line of JSON.
 */
#include "load.h"

static double us_of(int bucket) {
  if (bucket < 64) return bucket;
  int top = bucket / 32 + 4;
  return ((uint64_t)(32 + bucket % 32) << (top - 5)) + (double)((uint64_t)1 << (top - 5)) / 2;
}
static double quantile(double q) {
  uint64_t all = 0, seen = 0;
  for (int b = 0; b < BUCKETS; b++) all += histogram[b];
  for (int b = 0; b < BUCKETS; b++) if ((seen += histogram[b]) >= all * q && all) return us_of(b) / 1000;
  return -1;
}

static void when_cut_off(Viewer *viewer) { fprintf(stderr, "load: a viewer of project %d was cut off\n", viewer->project); }
static void when_ready(Viewer *viewer, uint32_t events, uint64_t now) { (void)events; receive(viewer, now); }

int main(int argc, char **argv) {
  if (argc != 5) { fprintf(stderr, "usage: load HOST PORT REDIS_PORT PLAN\n"); return 2; }
  read_plan(argv[4]);
  redis_fd = dial("127.0.0.1", atoi(argv[3])); fcntl(redis_fd, F_SETFL, O_NONBLOCK);
  double connecting = connect_all(argv[1], atoi(argv[2]));
  printf("READY %.3f\n", connecting); fflush(stdout);
  char line[16]; if (!fgets(line, sizeof line, stdin)) return 1;

  for (int p = 0; p < plan.projects; p++) projects[p].reached = 0;
  started_us = now_us(); is_counting = 1; deliveries = reflected = skipped = bytes_in = 0;
  printf("START\n"); fflush(stdout);
  uint64_t until = started_us + (uint64_t)(plan.seconds * 1e6), now;
  while ((now = now_us()) < until) {
    if (plan.rate > 0) publish_due(now);
    else for (int p = 0; p < plan.projects && pending_length < BUFFER; p++) {
      long room = plan.window - (projects[p].sent - projects[p].reached / plan.viewers);
      while (room-- > 0) publish(p, now);
    }
    flush_redis();
    poll_viewers(plan.rate > 0 ? 1 : 0);
  }
  is_counting = 0;
  double seconds = (now_us() - started_us) / 1e6;
  long counted = reflected, delivered = deliveries, bytes = bytes_in;
  printf("STOP\n"); fflush(stdout);

  is_counting = 1;  /* what is under way is waited for, and counted as lost where it does not come */
  uint64_t limit = now_us() + 10000000; long behind = 1;
  while (behind && now_us() < limit) {
    flush_redis(); poll_viewers(10); behind = 0;
    for (int v = 0; v < total; v++) behind += projects[viewers[v].project].sent + plan.first - 1 - viewers[v].index;
  }
  printf("{\"seconds\": %.3f, \"published\": %ld, \"deliveries\": %ld, \"reflected\": %ld, \"skipped\": %ld, \"behind\": %ld, "
    "\"bytes\": %ld, \"opened\": %d, \"connecting_s\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f}\n",
    seconds, published, delivered, counted, skipped, behind, bytes, opened, connecting, quantile(.5), quantile(.99), quantile(.999));
  return 0;
}
