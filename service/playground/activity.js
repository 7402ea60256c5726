// What a section does: one thing at a time. What is started anew takes the place of what went on.

export class Activity {
  #section;
  #work;
  #current = new AbortController();

  /** `work(signal, ...given)` is what is done; its errors are shown in the section. */
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
