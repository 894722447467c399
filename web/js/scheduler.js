/**
 * Drawing at most once a frame, and less often when drawing is slow, so that typing and scrolling stay
 * smooth while a long reply streams. Knows time only.
 */

/** Drawing that takes longer than this is spread out. Milliseconds. */
const SLOW_MS = 8;
/** The share of time that slow drawing may take is one in this many. */
const REST = 4;

/**
 * A function that makes `draw` run soon; calls until then are one.
 * @param {() => void} draw
 */
export function createScheduler(draw) {
  let planned = false;
  let rest = 0;

  function run() {
    planned = false;
    const start = performance.now();
    draw();
    const took = performance.now() - start;
    rest = took > SLOW_MS ? took * REST : 0;
  }

  return function schedule() {
    if (planned) return;
    planned = true;
    if (rest > 0) setTimeout(() => requestAnimationFrame(run), rest);
    else requestAnimationFrame(run);
  };
}
