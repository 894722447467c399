/**
 * The swarm as `GET /api/events` tells it: one picture, and what happened to it. Pure. Does not know streams.
 *
 * @import { Model, Swarm, Volunteer } from "../protocol.js"
 * @typedef {{ type: string, swarm?: Swarm, volunteer?: Volunteer, model?: Model, missed?: number }} SwarmEvent
 * @typedef {{ models: ReadonlyMap<string, Model>, volunteers: ReadonlyMap<string, Volunteer> }} Picture
 */

/** @type {Picture} */
export const NOTHING = { models: new Map(), volunteers: new Map() };

/**
 * A picture from a whole swarm.
 * @param {Swarm} swarm
 * @returns {Picture}
 */
export function pictureOf({ models, volunteers }) {
  return {
    models: new Map(models.map((one) => [one.id, one])),
    volunteers: new Map(volunteers.map((one) => [one.id, one])),
  };
}

/**
 * The picture after an event; the same one where the event changes nothing that is known here.
 * @param {Picture} picture
 * @param {SwarmEvent} event
 * @returns {Picture}
 */
export function after(picture, event) {
  if (event.type === "swarm" && event.swarm) return pictureOf(event.swarm);
  if (event.model) {
    const models = new Map(picture.models).set(event.model.id, event.model);
    return { ...picture, models };
  }
  if (!event.volunteer) return picture;
  const volunteers = new Map(picture.volunteers);
  if (event.type === "left") volunteers.delete(event.volunteer.id);
  else volunteers.set(event.volunteer.id, event.volunteer);
  return { ...picture, volunteers };
}

/**
 * An event of the stream's text; null for one that cannot be read.
 * @param {string} text
 * @returns {SwarmEvent | null}
 */
export function readEvent(text) {
  try {
    const event = JSON.parse(text);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}
