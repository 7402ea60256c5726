// A section's activity: one task at a time. Starting a new task cancels the current one.

export class Activity {
  #section;
  #work;
  #current = new AbortController();

  /** `work(signal, ...given)` performs the task; its errors are shown in the section. */
  constructor(section, work) {
    this.#section = section;
    this.#work = work;
  }

  async start(...given) {
    this.stop();
    const { signal } = (this.#current = new AbortController());
    this.#tell("");
    try {
      await this.#work(signal, ...given);
    } catch (error) {
      if (!signal.aborted) this.#tell(error.message);
    }
  }

  stop() {
    this.#current.abort();
  }

  #tell(problem) {
    this.#section.querySelector(".problem").textContent = problem;
  }
}
