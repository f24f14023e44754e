/* The camera of the device, a frame at a time. Its pictures go nowhere. */
import {BadPicture, readFrame} from './pictures.js';

const WHY = {
  NotAllowedError: 'The camera may not be used. If you want to, allow it for '
    + 'this page beside its address, and try again.',
  NotFoundError: 'No camera was found on this device.',
  NotReadableError: 'The camera did not start. Another program may be using '
    + 'it; close that, and try again.',
};

/**
 * Ask for the camera, and start it.
 *
 * @param {() => void} lost called when it is pulled out or taken away.
 * @returns {Promise<{frame: () => Promise<object>, stop: () => void}>} `frame`
 *     gives what the camera sees, as `readPicture` gives a picture.
 * @throws {BadPicture} with the reason.
 */
export async function openCamera(lost) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new BadPicture('This browser gives no camera to this page. Pages '
      + 'must come over https, or from this device itself, to get one.');
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({audio: false, video: {
      facingMode: 'environment', width: {ideal: 640}}});
  } catch (error) {
    throw new BadPicture(WHY[error.name]
      ?? `The camera did not start: ${error.message || error.name}.`);
  }
  const stop = () => stream.getTracks().forEach((track) => track.stop());
  const video = Object.assign(document.createElement('video'), {
    muted: true, playsInline: true, srcObject: stream});
  try {
    await video.play();
  } catch (error) {
    stop();
    throw new BadPicture(`The camera did not start: ${error.message}.`);
  }
  stream.getVideoTracks()[0].addEventListener('ended', lost);
  return {frame: () => readFrame(video, "the camera's picture"), stop};
}
