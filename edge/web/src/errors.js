/** A file or a choice that cannot be used; the message is one sentence for the user. */
export class InputError extends Error {}
