pypose-ops train deeppose --preset efficientnet_lite0 --recipe --precision 32-true \
  --set crops=2 --backbone heatmap_net/weights.safetensors \
  --freeze cascade.first.net.features.stem --freeze cascade.first.net.features.blocks.0 --freeze cascade.first.net.features.blocks.1 --freeze cascade.first.net.features.blocks.2 \
  --freeze cascade.refine.0.net.features.stem --freeze cascade.refine.0.net.features.blocks.0 --freeze cascade.refine.0.net.features.blocks.1 --freeze cascade.refine.0.net.features.blocks.2 \
  --freeze cascade.refine.1.net.features.stem --freeze cascade.refine.1.net.features.blocks.0 --freeze cascade.refine.1.net.features.blocks.1 --freeze cascade.refine.1.net.features.blocks.2 \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.25 --phase-epochs 8,6,6 --last-epochs 3 --out deeppose_pretrained/before
