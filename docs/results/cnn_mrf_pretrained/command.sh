pypose-ops train cnn_mrf --preset efficientnet_lite0 --recipe --precision 32-true \
  --backbone heatmap_net/weights.safetensors \
  --freeze cascade.features.backbone.stem --freeze cascade.features.backbone.blocks.0 --freeze cascade.features.backbone.blocks.1 --freeze cascade.features.backbone.blocks.2 \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.15 --phase-epochs 6,1,6 --last-epochs 3 --out cnn_mrf_pretrained
